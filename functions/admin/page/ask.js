// Owns the question before an act, and the act's way: asked, under way, done or refused.

import { at, setText } from "./element.js";
import { tell } from "./news.js";
import { look } from "./refresh.js";

let current;

// `act` does it and gives the sentence that tells what it came to.
export function ask({ title, text, yes, danger = false, act }) {
  const dialog = at("ask");
  current = act;
  setText(at("ask-title"), title);
  setText(at("ask-text"), text);
  setText(at("ask-error"), "");
  setText(at("ask-yes"), yes);
  at("ask-yes").classList.toggle("danger", danger);
  at("ask-yes").disabled = false;
  at("ask-yes").onclick = confirm;
  dialog.showModal();
  at("ask-no").focus();
}

export const forget = () => (current = undefined);

async function confirm() {
  const [act, button] = [current, at("ask-yes")];
  button.disabled = true;
  try {
    const outcome = await act();
    at("ask").close();
    tell(outcome);
    await look();
  } catch (failure) {
    // The session ended meanwhile: that is told elsewhere.
    if (failure.status === 401) return;
    setText(at("ask-error"), refused(failure));
    button.disabled = false;
  }
}

function refused(failure) {
  const { activeJobId } = failure.body ?? {};
  if (activeJobId) return `Job ${activeJobId} is active in the same lane. Wait for its end, or cancel it first.`;
  return `It wasn’t done: ${failure.message}.`;
}
