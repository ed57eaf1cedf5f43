// Greets whoever is named in the query: GET /{{app}}/{{name}}/?name=Ada

async function answer(request) {
  const url = new URL(request.url);
  const name = url.searchParams.get('name') ?? 'world';
  // What goes to the console is kept for `dunlin logs`.
  console.error(`${request.method} ${url.pathname}`);
  const body = JSON.stringify({ greeting: `Hello, ${name}!`, path: url.pathname });
  return new Response(`${body}\n`, { headers: { 'content-type': 'application/json' } });
}

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));
