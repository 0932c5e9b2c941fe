// Questions and streams. A stream is open only while its view is there and the page is seen.

const state = document.getElementById("state");

function tell(text, lost) {
  state.textContent = text;
  state.classList.toggle("lost", Boolean(lost));
}

// ask puts a question. The error is the daemon's own words.
export async function ask(name, query = {}, signal) {
  const q = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== undefined && v !== ""));
  const answer = await fetch(`data/${name}?${q}`, {signal});
  const body = await answer.json().catch(() => ({error: `the daemon answered ${answer.status}`}));
  if (!answer.ok) throw new Error(body.error);
  return body;
}

// listen opens a stream: on has a function for each event. It returns what ends it.
export function listen(name, query, on) {
  let source = null, ended = false;
  const url = `events/${name}?${new URLSearchParams(Object.entries(query).filter(([, v]) => v))}`;
  function open() {
    if (source || ended || document.hidden) return;
    source = new EventSource(url);
    source.onopen = () => tell("live");
    source.onerror = () => tell("no answer from nsgd; asking again", true);
    for (const [event, take] of Object.entries(on)) source.addEventListener(event, (e) => take(JSON.parse(e.data)));
    source.addEventListener("refused", (e) => {
      ended = true;
      close();
      tell("refused", true);
      if (on.refusal) on.refusal(JSON.parse(e.data));
    });
  }
  function close() {
    if (source) source.close();
    source = null;
  }
  function seen() {
    if (document.hidden) close(); else open();
  }
  document.addEventListener("visibilitychange", seen);
  open();
  return () => {
    ended = true;
    close();
    document.removeEventListener("visibilitychange", seen);
    tell("");
  };
}
