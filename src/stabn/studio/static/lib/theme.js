// Runs before the first paint, so that a page in the dark theme never flashes white.
try {
  const theme = localStorage.getItem("stabn-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // storage may be forbidden; the system's theme is used
}
