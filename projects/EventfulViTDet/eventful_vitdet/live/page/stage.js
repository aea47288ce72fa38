// Where things stand: the stage as large as the window allows, the panels beside it or, where there is no room, below.

const NARROW = 480; // pixels: the bar of a stage that is narrower has a row more (live.css)
const BAR = 94; // pixels that the bar below a picture is high
const NARROW_BAR = 132;
const LEAST_STAGE = 320; // pixels of its width
const LEAST_PICTURE = 240; // pixels of its height, also where the window is lower
const LEAST_ASIDE = 340; // pixels of the panels' width
const PANELS = 300; // pixels of the height of panels side by side
const SHRUNK = 2 / 3; // a stage that would be smaller than this part of its size is not made smaller for the panels

/** Pixels of the window below the header, and between the stage and the panels: {width, height, gap}. */
export function spaceOfWindow() {
  const { paddingLeft, paddingTop, columnGap } = getComputedStyle(document.querySelector("main"));
  const [side, top] = [parseFloat(paddingLeft), parseFloat(paddingTop)];
  const header = document.querySelector("header").offsetHeight;
  // The window's width, and not the page's: that changes with the scroll bar, which what is made of it decides on.
  return { width: innerWidth - 2 * side, height: innerHeight - header - 2 * top, gap: parseFloat(columnGap) };
}

/**
 * The stage with the panels beside it or below, whichever is better; the page is told.
 * @param space as of spaceOfWindow
 * @param fit makes the stage of a space: its `width` and `height`, and the `size` of what it shows, all in pixels
 * @returns the stage
 */
export function place(space, fit) {
  const below = fit(space);
  const room = space.width - LEAST_ASIDE - space.gap;
  const beside = room < LEAST_STAGE ? null : fit({ ...space, width: room });
  const panelsAreSeen = below.height + space.gap + PANELS <= space.height;
  const isBelow = !beside || beside.size < below.size * (panelsAreSeen ? 1 : SHRUNK);
  const stage = isBelow ? below : beside;
  document.body.classList.toggle("below", isBelow);
  document.documentElement.style.setProperty("--stage", `${Math.ceil(Math.max(stage.width, LEAST_STAGE))}px`);
  return stage;
}

/** The stage of a picture, or of several of its shape: also their `grid`, [columns, rows], and the `tall` pixels they take. */
export function fitPicture(picture, panels, space) {
  const above = (bar) => {
    const room = { width: space.width, height: Math.max(LEAST_PICTURE, space.height - bar) };
    const grid = arrange(picture, panels, room);
    const aspect = (grid[0] * picture.width) / (grid[1] * picture.height);
    const size = Math.min(room.width, room.height * aspect);
    return { grid, aspect, size, width: size, tall: size / aspect, height: size / aspect + bar };
  };
  const stage = above(BAR);
  return stage.width < NARROW ? above(NARROW_BAR) : stage;
}

/** How panels of a picture's shape are put together to be as large as possible in a space: [columns, rows]. */
function arrange(picture, panels, space) {
  const across = Math.min(space.width / panels / picture.width, space.height / picture.height);
  const down = Math.min(space.width / picture.width, space.height / panels / picture.height);
  return panels === 1 || across >= down ? [panels, 1] : [1, panels];
}
