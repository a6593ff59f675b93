// Follows the end of what scrolls while it grows, for as long as the reader is there.

const NEAR_PX = 24;

export class EndFollower {
  #scroller;
  #button;
  #lastTop = 0;
  #isFollowing = true;

  /** `button` is shown while the end is out of sight, and leads there. */
  constructor(scroller, content, button) {
    this.#scroller = scroller;
    this.#button = button;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
    const observer = new ResizeObserver(() => this.#follow());
    observer.observe(content);
    observer.observe(scroller);
  }

  toEnd() {
    this.#isFollowing = true;
    this.#follow();
  }

  #scrolled() {
    const top = this.#scroller.scrollTop;
    // Only who scrolls up leaves the end: it moves away by itself, too, as text arrives.
    if (this.#isNearEnd()) this.#isFollowing = true;
    else if (top < this.#lastTop) this.#isFollowing = false;
    this.#lastTop = top;
    this.#button.hidden = this.#isNearEnd();
  }

  #follow() {
    if (this.#isFollowing) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#scrolled();
  }

  #isNearEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_PX;
  }
}
