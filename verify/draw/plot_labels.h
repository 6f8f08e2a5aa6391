#pragma once

#include <optional>
#include <vector>

#include "verify/draw/plot_canvas.h"

namespace quern::plot {

// Finds places for labels beside points: each tries positions around its point, near ones first, and takes the one that covers least
// of what is already there. The method is ours.
class LabelPlacer {
 public:
  explicit LabelPlacer(const Box& area) : area_(area) {}

  void avoid(const Box& box) { obstacles_.push_back({box, 1.0}); }
  // Curves may be covered when nothing else is free.
  void avoid_line(double x1, double y1, double x2, double y2);

  struct Place {
    double x = 0.0, y = 0.0;  // baseline of the text
    Anchor anchor = Anchor::kStart;
    bool far = false;  // too far from its point to be understood without a leader line
  };
  // Returns nothing when every place would cover another label or mark. The place is taken from then on.
  std::optional<Place> place(double x, double y, double width);

 private:
  struct Obstacle {
    Box box;
    double weight;
  };
  Box area_;
  std::vector<Obstacle> obstacles_;
};

}  // namespace quern::plot
