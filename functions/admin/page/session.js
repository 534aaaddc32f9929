// Owns signing in and out. The session itself is a cookie that no script can read; only its end is remembered here, so
// that nobody asks for figures without one.

import { onSessionEnd, post, signIn } from "./api.js";
import { at, setText } from "./element.js";

const END = "cronvec.session";

let whenBegun = () => {};
let whenOver = () => {};
let clock;

const remembered = () => Number(localStorage.getItem(END)) * 1000;

export function begin({ begun, over }) {
  [whenBegun, whenOver] = [begun, over];
  onSessionEnd(() => end("Your session has ended, or its token was revoked. Sign in to go on."));
  at("sign-in-form").addEventListener("submit", submit);
  at("sign-out").addEventListener("click", signOut);
  // Another window may have signed out or in.
  addEventListener("storage", (event) => event.key === END && look());
  look();
}

function look() {
  if (remembered() > Date.now()) return start();
  end(localStorage.getItem(END) ? "Your session has ended. Sign in to go on." : "");
}

function start() {
  clearTimeout(clock);
  clock = setTimeout(look, remembered() - Date.now() + 1000);
  at("sign-in").hidden = true;
  at("sign-out").hidden = false;
  whenBegun();
}

function end(why) {
  clearTimeout(clock);
  localStorage.removeItem(END);
  whenOver();
  at("sign-out").hidden = true;
  at("sign-in").hidden = false;
  at("sign-in-why").hidden = !why;
  setText(at("sign-in-why"), why);
  at("token").focus();
}

async function submit(event) {
  event.preventDefault();
  const [field, button] = [at("token"), event.submitter ?? event.target.querySelector("button")];
  setText(at("sign-in-error"), "");
  if (!field.value.trim()) return refuse("Enter a token; it begins with cvk_.");
  button.disabled = true;
  try {
    const { expiresAt } = await signIn(field.value.trim());
    field.value = "";
    field.removeAttribute("aria-invalid");
    localStorage.setItem(END, String(expiresAt));
    start();
    at("main").focus();
  } catch (failure) {
    refuse(told(failure));
  } finally {
    button.disabled = false;
  }
}

function refuse(text) {
  at("token").setAttribute("aria-invalid", "true");
  setText(at("sign-in-error"), text);
  at("token").focus();
}

function told(failure) {
  if (failure.status === 401) return "No such token: it is mistyped, revoked or over. Ask for a new one.";
  if (failure.status === 403) return `This token may not see the queue: ${failure.message}.`;
  if (failure.status === 429) return `Too many attempts. Try again in ${failure.retryAfter ?? "some"} s.`;
  return `Signing in failed: ${failure.message}. Try again.`;
}

async function signOut() {
  try {
    await post("admin/logout");
  } catch (failure) {
    // Who isn't signed in any more is out.
    if (failure.status !== 401) return end(`Signing out failed: ${failure.message}. The session lasts until its end; revoke the token if it must not.`);
  }
  end("");
}
