'use client';

import { useEffect, useState } from 'react';

// Fixed when the image is built (the build argument of the same name).
const api = process.env.NEXT_PUBLIC_API_URL;

async function load() {
  const answer = await fetch(`${api}/v1/projects`);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.json();
}

export default function Projects() {
  const [state, setState] = useState({ text: 'Loading the projects…' });

  useEffect(() => {
    load().then(
      (projects) => setState({ projects }),
      (error) => setState({ text: `The projects could not be loaded: ${error.message}` }),
    );
  }, []);

  if (!state.projects) return <p>{state.text}</p>;
  if (state.projects.length === 0) return <p>There are no projects yet.</p>;
  return (
    <ul>
      {state.projects.map((project) => (
        <li key={project.key}>
          {project.key}: {project.name}
        </li>
      ))}
    </ul>
  );
}
