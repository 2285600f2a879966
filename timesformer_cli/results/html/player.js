// ---- A player: plays a video or a part of it, or moves a film, the frames of a video that browsers do not play

const FRAMES_OF_FILM = 8;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// Seconds as 0:07 or 1:02:03, or with tenths as 0:07.5.
function clock(seconds, tenths = false) {
  const units = Math.round(10 * (tenths ? seconds : Math.round(seconds)));
  const [hours, minutes, rest] = [units / 36000, (units / 600) % 60, (units / 10) % 60].map(Math.floor);
  const two = (number) => String(number).padStart(2, "0");
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(rest)}${tenths ? `.${units % 10}` : ""}`;
}

// A film that stands still until the pointer is on it, or until it is told to move.
function film(data) {
  const image = picture(data);
  const element = make("div", { class: "film" }, image);
  image.addEventListener("load", () => {
    element.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight / FRAMES_OF_FILM}`;
  });
  return element;
}

const unplayed = (text) => make("div", { class: "unplayed" }, text);

// A box that plays what it loads, one after another: `{ url, film, name, start, end, ratio }`, a film if there is one.
// `ratio` is how wide the video is for its height, as far as known before it is loaded.
class Player {
  #shown = null;
  #frame = 0;

  constructor() {
    this.element = make("div", { class: "player" });
  }

  // With `loop` it starts at once, without sound, and plays from `start` to `end` again and again; null stands for the
  // start or the end of the video. Who goes beyond the end by hand is left there.
  load(shown, { loop = false, preload = "metadata" } = {}) {
    const before = this.#shown;
    this.#shown = shown;
    if (shown.film) this.#show(this.#film(shown));
    else if (!shown.url) this.#show(unplayed("A browser cannot open this address."));
    else if (loop && before?.url === shown.url && this.video?.videoWidth) this.#begin(this.video);
    else this.#show(this.#video(shown, loop, preload));
  }

  get video() {
    return this.element.querySelector("video");
  }

  // Whether there are frames to step through.
  get steps() {
    return Boolean(this.element.querySelector(".film"));
  }

  // Show the next frame of a film, or an earlier one, and stop there.
  step(by) {
    const element = this.element.querySelector(".film");
    this.#frame = (this.#frame + by + FRAMES_OF_FILM) % FRAMES_OF_FILM;
    element.classList.replace("moving", "still");
    element.firstChild.style.transform = `translateY(${(-100 * this.#frame) / FRAMES_OF_FILM}%)`;
    element.ariaLabel = `Frame ${this.#frame + 1} of ${FRAMES_OF_FILM} of ${this.#shown.name}`;
  }

  // Play, or stop.
  toggle() {
    const { video } = this;
    if (video?.paused) video.play();
    else if (video) video.pause();
    else if (this.steps && !this.element.querySelector(".film").classList.replace("still", "moving")) this.step(0);
  }

  #show(content) {
    this.video?.removeAttribute("src"); // or it would go on loading
    this.element.replaceChildren(content);
  }

  #film({ film: data, name }) {
    const element = film(data);
    element.classList.add(calm.matches ? "still" : "moving");
    element.role = "img";
    element.ariaLabel = `Frames of ${name}`;
    this.#frame = 0;
    return element;
  }

  #video({ url, name, ratio }, loop, preload) {
    const video = make("video", { controls: "", playsinline: "", preload, "aria-label": name });
    if (ratio) video.style.aspectRatio = ratio;
    const fail = () => {
      if (this.video === video) this.#show(unplayed("This browser cannot play it, or the file has moved."));
    };
    video.muted = loop; // or it would not start
    video.addEventListener("error", fail);
    video.addEventListener("loadedmetadata", () => {
      if (!video.videoWidth) return fail(); // only its sound can be played
      if (!loop) return;
      video.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
      this.#begin(video);
    });
    if (loop) {
      let before = 0;
      video.addEventListener("timeupdate", () => {
        const { end } = this.#shown;
        if (!video.seeking && end != null && before < end && video.currentTime >= end) this.#begin(video);
        before = video.currentTime;
      });
      video.addEventListener("ended", () => this.#begin(video));
    }
    video.src = url;
    return video;
  }

  #begin(video) {
    video.currentTime = this.#shown.start ?? 0;
    if (!calm.matches) video.play().catch(() => {}); // it has been taken away meanwhile
  }
}
