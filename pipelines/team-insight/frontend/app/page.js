import Projects from './projects';

export default function Page() {
  return (
    <main>
      <h1>Team Insight</h1>
      <Projects />
    </main>
  );
}
