"use strict";

const PAUSE = 5000;      // milliseconds between two looks

function say(words, bad = false) {
  const said = document.getElementById("said");
  said.textContent = words;
  said.classList.toggle("bad", bad);
}

/** Whether a person is in the middle of something that new content would disturb. */
function isBusy() {
  return document.hidden || document.querySelector("main :focus") !== null || !getSelection().isCollapsed;
}

async function refresh() {
  const answer = await fetch("/", { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(String(answer.status));
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of ["body > header", "main"]) {
    document.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
  }
}

async function look() {
  if (!isBusy()) {
    try {
      await refresh();
      if (document.getElementById("said").classList.contains("bad")) say("");
    } catch {
      say("The server does not answer. This page is as it was.", true);
    }
  }
  setTimeout(look, PAUSE);
}

async function retry(form) {
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch(form.action, {
      method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" },
    });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error);
    say("Put back into its lane: it is sent again as soon as the delivery runs.");
    await refresh();
  } catch (fault) {
    say(`Not done. ${fault.message}`, true);
    button.disabled = false;
  }
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  retry(event.target);
});
setTimeout(look, PAUSE);
