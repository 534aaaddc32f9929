// Owns light or dark: the system's, until somebody chooses. Runs before anything is painted, so that nothing flashes.
"use strict";
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem("cronvec.theme");
  const isDark = () => (chosen() ? chosen() === "dark" : system.matches);
  const show = () => {
    if (chosen()) root.dataset.theme = chosen();
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));
  };
  show();
  system.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      localStorage.setItem("cronvec.theme", isDark() ? "light" : "dark");
      show();
    });
  });
}
