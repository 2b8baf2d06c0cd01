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
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const every = (values, offset) => Array.from({ length: values.length / 3 }, (_, n) => values[3 * n + offset]);
  // Vertices are whole steps from the origin; three numbers a vertex, three a triangle.
  const unpack = (mesh) => {
    const vertices = new Uint16Array(bytes(mesh.v).buffer), triangles = new Uint16Array(bytes(mesh.f).buffer);
    const change = { intensity: [Array.from(bytes(mesh.c))] };
    ["x", "y", "z"].forEach((axis, n) => {
      change[axis] = [every(vertices, n).map((v) => track.origin[n] + track.step * v)];
    });
    ["i", "j", "k"].forEach((corner, n) => { change[corner] = [every(triangles, n)]; });
    return change;
  };
  const frames = track.mesh ? track.mesh.map(unpack)
    : track.position.map((_, k) => ({ x: [track.x[k]], y: [track.y[k]], z: [track.z[k]] }));
  const show = (k) => {
    frame = k;
    slider.value = k;
    label.textContent = track.label[k];
    return Plotly.restyle(box, frames[k], [track.trace]);
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
