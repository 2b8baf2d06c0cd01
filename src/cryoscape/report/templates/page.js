"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const config = { responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "toggleSpikelines"] };
  document.querySelectorAll(".figure").forEach((box) => {
    const figure = read("data-" + box.id);
    Plotly.newPlot(box, figure.data, figure.layout, config);
  });

  // Colour of the maps: the particles are the first trace of every map.
  const ways = document.getElementById("colourings") ? read("colourings") : [];
  const buttons = document.querySelectorAll("#colour-by button");
  buttons.forEach((button, k) => button.addEventListener("click", () => {
    buttons.forEach((other) => other.classList.toggle("on", other === button));
    const change = {};
    for (const [key, value] of Object.entries(ways[k].marker)) change["marker." + key] = [value];
    document.querySelectorAll(".figure.map").forEach((map) => Plotly.restyle(map, change, [0]));
  }));

  // The moving trace plays back and forth until it is stopped.
  const box = document.getElementById("fig-movie");
  if (!box) return;
  const track = read("movie-frames");
  const count = track.position.length;
  const slider = document.getElementById("movie-slider");
  const label = document.getElementById("movie-label");
  const play = document.getElementById("movie-play");
  let frame = Math.floor(count / 2), direction = 1, timer = null;
  const show = (k) => {
    frame = k;
    slider.value = k;
    label.textContent = (track.position[k] > 0 ? "+" : "") + track.position[k].toFixed(2) + " Å";
    return Plotly.restyle(box, { x: [track.x[k]], y: [track.y[k]], z: [track.z[k]] }, [track.trace]);
  };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "▶ Play"; };
  const start = () => {
    play.textContent = "❚❚ Pause";
    timer = setInterval(() => {
      if (frame + direction < 0 || frame + direction >= count) direction = -direction;
      show(frame + direction);
    }, 110);
  };
  play.addEventListener("click", () => (timer ? stop() : start()));
  slider.addEventListener("input", () => { if (timer) stop(); show(Number(slider.value)); });
  show(frame);
})();
