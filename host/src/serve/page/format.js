// Numbers for people. What is no number is a dash.

export const UNKNOWN = "–";

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function isNumber(value) {
  return Number.isFinite(value);
}

export function formatNumber(value, digits = 0) {
  if (!isNumber(value)) return UNKNOWN;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function formatRate(value) {
  if (Number.isInteger(value) || value >= 100) return formatNumber(value);
  return formatNumber(value, value >= 10 ? 1 : 2);
}

export function formatPercent(value) {
  return isNumber(value) ? `${formatRate(value * 100)} %` : UNKNOWN;
}

export function formatBytes(value) {
  if (!isNumber(value)) return UNKNOWN;
  let size = value;
  let unit = 0;
  for (; size >= 1000 && unit < UNITS.length - 1; unit += 1) size /= 1000;
  return `${formatRate(size)} ${UNITS[unit]}`;
}

export function formatDuration(seconds) {
  if (!isNumber(seconds)) return UNKNOWN;
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  return hours > 0 ? `${hours} h ${minutes % 60} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}
