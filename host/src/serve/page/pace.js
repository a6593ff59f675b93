// Doing things less often than there is reason to.

/** Calls of the result end in one call of `action`, in the next frame. */
export function oncePerFrame(action) {
  return once(requestAnimationFrame, action);
}

/** The same, `ms` after the first of them. */
export function atMostEvery(ms, action) {
  return once((later) => setTimeout(later, ms), action);
}

function once(schedule, action) {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    schedule(() => {
      isDue = false;
      action();
    });
  };
}
