// Runs before the first paint, so that a chosen theme never flashes; the only classic script.
(() => {
  let theme = null;
  try { theme = localStorage.getItem("calotype.theme"); } catch { /* storage is off */ }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
