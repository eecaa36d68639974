// A click makes a box as wide as the drawing, with what stands on it; what it stands on becomes as wide.
(function () {
  var WIDTH = 1200, LETTER = 6.7, LEFT = 3, LETTERS_MIN = 4;
  var boxes = Array.prototype.map.call(document.querySelectorAll("g.f"), function (g) {
    var rect = g.querySelector("rect"), title = g.querySelector("title").textContent;
    return {
      g: g, rect: rect, text: g.querySelector("text"), name: title.slice(0, title.lastIndexOf(" (")),
      x: +rect.getAttribute("x"), y: +rect.getAttribute("y"), width: +rect.getAttribute("width")
    };
  });
  function fitting(name, width) {
    var letters = Math.floor((width - 2 * LEFT) / LETTER);
    for (var module; name.length > letters && (module = /^[a-z0-9_]+::/.exec(name));) {
      name = name.slice(module[0].length);
    }
    if (name.length <= letters) return name;
    return letters < LETTERS_MIN ? "" : name.slice(0, letters - 2) + "..";
  }
  function zoom(to) {
    boxes.forEach(function (box) {
      // Half a hundredth on each side is what rounding may have taken.
      var above = box.y <= to.y && box.x >= to.x - 0.01 && box.x + box.width <= to.x + to.width + 0.01;
      var below = box.y > to.y && box.x <= to.x + 0.01 && box.x + box.width >= to.x + to.width - 0.01;
      box.g.style.display = above || below ? "" : "none";
      var x = above ? (box.x - to.x) * WIDTH / to.width : 0;
      var width = above ? box.width * WIDTH / to.width : WIDTH;
      box.rect.setAttribute("x", x);
      box.rect.setAttribute("width", width);
      box.text.setAttribute("x", x + LEFT);
      box.text.textContent = fitting(box.name, width);
    });
  }
  boxes.forEach(function (box) {
    box.g.addEventListener("click", function () { zoom(box); });
  });
})();
