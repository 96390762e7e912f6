// Asked for each time, never taken from the build.
export const dynamic = 'force-dynamic';

export function GET() {
  return Response.json({ status: 'healthy', version: process.env.APP_VERSION ?? 'development' });
}
