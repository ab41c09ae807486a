"use strict";
/* What is laid over the image: one canvas that is drawn anew when the view moves. Shapes are in pixels of the image. */
class Overlay {
  constructor(viewer, width, height) {
    Object.assign(this, { viewer, width, height, layers: [] });
    this.canvas = document.createElement("canvas");
    this.canvas.className = "layer-canvas";
    this.canvas.setAttribute("aria-hidden", "true");
    viewer.canvas.append(this.canvas);
    for (const event of ["update-viewport", "resize", "open"]) viewer.addHandler(event, () => this.draw());
  }

  /* A layer has on, opacity and paint(context, place); place gives canvas pixels: x, y and scale. */
  add(layer) {
    this.layers.push(layer);
  }

  get place() {
    const item = this.viewer.world.getItemAt(0);
    if (!item) return null;
    const corner = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const end = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(this.width, this.height));
    return { x: corner.x, y: corner.y, scale: (end.x - corner.x) / this.width };
  }

  draw() {
    const place = this.place, box = this.viewer.canvas, dense = window.devicePixelRatio || 1;
    const wide = Math.round(box.clientWidth * dense), high = Math.round(box.clientHeight * dense);
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, wide, high);
    if (!place) return;
    context.scale(dense, dense);
    for (const layer of this.layers) {
      if (!layer.on) continue;
      context.save();
      context.globalAlpha = layer.opacity;
      layer.paint(context, place, { width: this.width * place.scale, height: this.height * place.scale });
      context.restore();
    }
  }
}

const DARK = "#1d2329", LIGHT = "#ffffff";
const written = (context, words, x, y, size = 14) => {
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = LIGHT;
  context.strokeText(words, x, y);
  context.fillStyle = DARK;
  context.fillText(words, x, y);
};
const painters = {
  picture: image => (context, place, size) => {
    context.imageSmoothingEnabled = false;  /* a kind is one or the other */
    context.drawImage(image, place.x, place.y, size.width, size.height);
  },
  sections: sections => (context, place) => {
    for (const section of sections) {
      context.beginPath();
      for (const line of section.lines) {
        line.forEach(([x, y], n) => context[n ? "lineTo" : "moveTo"](place.x + x * place.scale, place.y + y * place.scale));
        context.closePath();
      }
      for (const [colour, width] of [[DARK, 4], [LIGHT, 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.stroke();
      }
    }
    context.textAlign = "center";
    for (const section of sections) {
      written(context, section.name, place.x + section.at[0] * place.scale, place.y + section.at[1] * place.scale - 8, 17);
    }
  },
  tiles: tiles => (context, place) => {
    context.textAlign = "left";
    for (let n = tiles.length - 1; n >= 0; n--) {
      const tile = tiles[n], side = tile.size * place.scale;
      const x = place.x + tile.x * place.scale, y = place.y + tile.y * place.scale;
      context.strokeStyle = LIGHT;
      context.lineWidth = 3.5;
      context.strokeRect(x, y, side, side);
      context.strokeStyle = DARK;
      context.lineWidth = 1.5;
      context.strokeRect(x, y, side, side);
      if (side >= 26) written(context, String(n + 1), x + 5, y + 17, 13);
    }
  },
  attention: (tiles, times, scale, span) => {
    const order = times.map((_, n) => n).sort((a, b) => times[a] - times[b]);  /* the highest on top */
    const colour = value => {
      const share = 0.5 + Math.log2(Math.max(value, 2 ** -span)) / (2 * span);
      return scale[Math.max(0, Math.min(scale.length - 1, Math.round(share * (scale.length - 1))))];
    };
    return (context, place) => {
      for (const n of order) {
        const tile = tiles[n], side = tile.size * place.scale;
        context.fillStyle = colour(times[n]);
        context.fillRect(place.x + tile.x * place.scale, place.y + tile.y * place.scale, side, side);
      }
    };
  },
};
