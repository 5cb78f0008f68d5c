// The page's whole behaviour: keep the conversation, ask, show the answer as it comes.
"use strict";

const $ = (id) => document.getElementById(id);
const log = $("log"), text = $("text"), send = $("send");
let conversation = []; // {role, content}, as the server wants it
let answering = null; // an AbortController while an answer is on its way

function add(kind, content) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = content; // text, never markup: whatever the model says
  log.append(item);
  scroll(true);
  return item;
}

// To the end; not while somebody reads further up, unless something new begins.
function scroll(always) {
  const { scrollHeight, scrollTop, clientHeight } = log.parentElement;
  if (always || scrollHeight - scrollTop - clientHeight < 120) log.parentElement.scrollTop = scrollHeight;
}

function busy(controller) {
  answering = controller;
  send.textContent = controller ? "Stop" : "Send";
  log.ariaBusy = String(Boolean(controller)); // read aloud when it is whole, not word by word
}

async function ask() {
  const item = add("assistant waiting", "");
  const words = document.createTextNode("");
  item.append(words);
  const controller = new AbortController();
  busy(controller);
  let ended = "";
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ messages: conversation, stream: true }),
      signal: controller.signal,
    });
    if (!response.ok) {
      const said = await response.json().catch(() => null);
      throw new Error(said?.error?.message || `The server failed (status ${response.status}).`);
    }
    for await (const chunk of chunks(response)) {
      if (answering !== controller) return; // a new chat was begun meanwhile
      if (chunk.error) throw new Error(chunk.error.message);
      const { delta, finish_reason } = chunk.choices[0];
      if (delta.content) words.data += delta.content;
      if (chunk.nanochat) show(chunk.nanochat, item);
      ended = finish_reason || ended;
      scroll();
    }
    if (ended === "length") note(item, " … (the answer was cut: it had no more room)");
  } catch (error) {
    if (answering !== controller) return;
    if (error.name === "AbortError") {
      note(item, " (stopped)");
    } else {
      item.remove();
      fail(error);
      return;
    }
  } finally {
    item.classList.remove("waiting");
    if (answering === controller) busy(null);
  }
  conversation.push({ role: "assistant", content: words.data });
  text.focus();
}

// The JSON objects of a stream of server-sent events.
async function* chunks(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

// What stands beside the words: forgotten messages, and what the calculator was asked.
function show({ dropped_messages, tools }, item) {
  if (dropped_messages && !item.dataset.told) {
    item.dataset.told = "yes";
    conversation.splice(0, dropped_messages);
    const told = document.createElement("li");
    told.className = "note";
    told.textContent = `(the oldest ${dropped_messages} messages no longer fit and are forgotten)`;
    item.before(told);
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

function fail(error) {
  const unreachable = error instanceof TypeError; // what fetch throws where nobody listens
  const item = add("error", unreachable ? "The server does not answer. Is it still running?" : error.message);
  const retry = document.createElement("button");
  retry.type = "button";
  retry.textContent = "Retry";
  retry.addEventListener("click", () => {
    item.remove();
    ask();
  });
  item.append(retry);
  scroll();
}

function submit(words) {
  if (answering || !words.trim()) return;
  if (log.lastElementChild?.className === "error") { // asked anew instead of retried
    while (!log.lastElementChild.matches(".user")) log.lastElementChild.remove();
    log.lastElementChild.remove();
    conversation.pop();
  }
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
