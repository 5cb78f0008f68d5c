// Everything the page does: keep the conversation, send it, show the answer as it arrives.
// The server remembers nothing, so each request carries the whole conversation.
"use strict";

const $ = (id) => document.getElementById(id);
const log = $("log"), text = $("text"), send = $("send");
let conversation = []; // {role, content}, as the API takes it
let answering = null; // an AbortController while an answer is coming in
let forgetting = false; // true once the user was told that old messages are dropped

class Failure extends Error {} // its message is for the user; any other error is a bug in this page

function add(kind, content) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = content; // as text: what a model says may look like markup
  item.dir = "auto";
  log.append(item);
  scroll(true);
  return item;
}

// Keep the end in view, but not while the user reads further up; a new message always shows.
function scroll(always) {
  const { scrollHeight, scrollTop, clientHeight } = log.parentElement;
  if (always || scrollHeight - scrollTop - clientHeight < 120) log.parentElement.scrollTop = scrollHeight;
}

function busy(controller) {
  answering = controller;
  send.textContent = controller ? "Stop" : "Send";
  log.ariaBusy = String(Boolean(controller)); // screen readers wait for the whole answer
}

async function ask() {
  const item = add("assistant waiting", "");
  const words = document.createTextNode("");
  item.append(words);
  const controller = new AbortController();
  busy(controller);
  try {
    let ended = "";
    for await (const chunk of chunks(controller.signal)) {
      if (answering !== controller) return; // the user started a new chat meanwhile
      if (chunk.error) throw new Failure(chunk.error.message);
      if (chunk.nanochat) show(chunk.nanochat, item);
      if (chunk.choices?.length) {
        const { delta, finish_reason } = chunk.choices[0];
        words.data += delta.content || "";
        ended = finish_reason || ended;
      }
      scroll();
    }
    // A stream that just stops looks like a whole answer: only the finish_reason tells them apart.
    if (!ended) throw new Failure("The connection was lost before the answer was complete.");
    if (ended === "length") note(item, " … (cut off at the length limit)");
    else if (!words.data.trim()) note(item, "(empty answer)");
  } catch (error) {
    if (answering !== controller) return;
    const why = error instanceof Failure ? error.message : `This page failed: ${error}`;
    if (error.name === "AbortError") {
      note(item, " (stopped)");
    } else if (words.data.trim()) {
      note(item, ` … (interrupted: ${why})`);
    } else {
      item.remove();
      takeBack();
      add("error", why);
      return;
    }
  } finally {
    item.classList.remove("waiting");
    if (answering === controller) busy(null);
  }
  // Half an answer too: the model reads what the user sees.
  conversation.push({ role: "assistant", content: words.data });
  text.focus();
}

// A question that got no answer goes back into the box, so that nothing typed is lost. What was
// typed since stays below it.
function takeBack() {
  const { content } = conversation.pop();
  [...log.querySelectorAll(".user")].pop().remove();
  text.value = text.value.trim() ? `${content}\n${text.value}` : content;
  grow();
  text.focus();
}

// The answer's JSON objects. EventSource would read such a stream, but it can't send a body.
async function* chunks(signal) {
  const lost = (words) => (error) => { // fetch's own messages differ between browsers
    throw error.name === "AbortError" ? error : new Failure(words);
  };
  const response = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ messages: conversation, stream: true }),
    signal,
  }).catch(lost("The server is not responding. Is it still running?"));
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
    const said = await response.json().catch(() => null);
    throw new Failure(said?.error?.message || `The server failed (status ${response.status}).`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(lost("The connection was lost."));
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop(); // the last may be cut anywhere
    for (const event of events) {
      if (!event.startsWith("data: ")) continue; // a comment that keeps the connection alive
      const data = event.slice("data: ".length);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

// What comes with the words: dropped messages, and the calculator's work.
function show({ dropped_messages, tools }, item) {
  if (dropped_messages && !item.dataset.told) {
    item.dataset.told = "yes";
    conversation.splice(0, dropped_messages); // or every request would send them again
    if (!forgetting) {
      forgetting = true;
      const told = document.createElement("li");
      told.className = "note";
      told.textContent = "(context full: dropping the oldest messages from here on)";
      item.before(told);
    }
  }
  item.querySelectorAll(".tool").forEach((old) => old.remove());
  for (const { expression, result } of [...tools].reverse()) {
    const tool = document.createElement("span");
    tool.className = "tool";
    tool.textContent = result === null ? expression : `${expression} = ${result}`;
    item.prepend(tool);
  }
}

function note(item, words) {
  const span = document.createElement("span");
  span.className = "note";
  span.textContent = words;
  item.append(span);
}

function submit(words) {
  if (answering || !words.trim()) return;
  log.querySelector(".error")?.remove();
  $("welcome").hidden = true;
  conversation.push({ role: "user", content: words.trim() });
  add("user", words.trim());
  text.value = "";
  grow();
  ask();
}

function grow() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (answering) answering.abort();
  else submit(text.value);
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit(text.value);
  }
});
text.addEventListener("input", grow);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && answering) answering.abort();
});
$("new").addEventListener("click", () => {
  const old = answering;
  busy(null);
  if (old) old.abort();
  conversation = [];
  forgetting = false;
  log.replaceChildren();
  $("welcome").hidden = false;
  text.focus();
});
for (const example of $("examples").children) {
  example.addEventListener("click", () => submit(example.textContent));
}
fetch("health")
  .then((response) => response.json())
  .then(({ model }) => {
    $("model").textContent = model;
    document.title = `nanochat · ${model}`;
  })
  .catch(() => {});
