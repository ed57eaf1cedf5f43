// Renders a list as HTML: POST {"title": "…", "items": ["…"]} and get a page, everything escaped.

const entities = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text) => String(text).replace(/[&<>"']/g, (character) => entities[character]);

function page({ title, items }) {
  if (typeof title !== 'string' || !Array.isArray(items)) {
    throw new TypeError('want {"title": string, "items": array}');
  }
  const rows = items.map((item, index) => `  <li id="item-${index + 1}">${escape(item)}</li>`);
  return `<!doctype html>\n<h1>${escape(title)}</h1>\n<ol>\n${rows.join('\n')}\n</ol>\n`;
}

async function answer(request) {
  if (request.method !== 'POST') return new Response('POST a list\n', { status: 405 });
  try {
    const html = page(await request.json());
    return new Response(html, { headers: { 'content-type': 'text/html; charset=utf-8' } });
  } catch (error) {
    return new Response(`${error.message}\n`, { status: 400 });
  }
}

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));
