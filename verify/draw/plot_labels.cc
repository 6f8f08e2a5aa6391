#include "verify/draw/plot_labels.h"

#include <algorithm>
#include <cmath>

// Labels are placed one after the other and never moved again, so earlier ones get the better places; with a few dozen points nobody sees
// the difference to an optimum. The cost of a place is its rank plus the area of what it covers. Marks and other labels may not be covered
// at all; lines may, at half price, as a row of small boxes.

namespace quern::plot {
namespace {

constexpr double kAscent = 10.0, kHeight = 14.0;

struct Candidate {
  double dx, dy;  // of the baseline
  Anchor anchor;
};

// Near ones in the order in which a reader would look.
constexpr Candidate kCandidates[] = {
    {9, 4, Anchor::kStart},   {0, -10, Anchor::kMiddle}, {-9, 4, Anchor::kEnd},     {8, -8, Anchor::kStart},   {0, 19, Anchor::kMiddle},
    {8, 16, Anchor::kStart},  {-8, -8, Anchor::kEnd},    {-8, 16, Anchor::kEnd},    {22, -20, Anchor::kStart}, {22, 28, Anchor::kStart},
    {-22, -20, Anchor::kEnd}, {-22, 28, Anchor::kEnd},   {0, -28, Anchor::kMiddle}, {0, 36, Anchor::kMiddle},  {34, -36, Anchor::kStart},
    {34, 44, Anchor::kStart}, {-34, -36, Anchor::kEnd},  {-34, 44, Anchor::kEnd},
};
constexpr size_t kNear = 8;

Box box_of(double x, double y, Anchor anchor, double width) {
  const double left = anchor == Anchor::kStart ? x : anchor == Anchor::kMiddle ? x - width / 2.0 : x - width;
  return {left, y - kAscent, width, kHeight};
}

}  // namespace

void LabelPlacer::avoid_line(double x1, double y1, double x2, double y2) {
  constexpr double kPiece = 4.0;
  constexpr int kMostPieces = 400;
  const int pieces = std::clamp(static_cast<int>(std::hypot(x2 - x1, y2 - y1) / kPiece), 1, kMostPieces);
  for (int i = 0; i <= pieces; ++i) {
    const double t = static_cast<double>(i) / pieces;
    obstacles_.push_back({{x1 + t * (x2 - x1) - 2.0, y1 + t * (y2 - y1) - 2.0, 4.0, 4.0}, 0.5});
  }
}

std::optional<LabelPlacer::Place> LabelPlacer::place(double x, double y, double width) {
  std::optional<Place> best;
  double best_cost = 0.0;
  for (size_t i = 0; i < std::size(kCandidates); ++i) {
    const Candidate& c = kCandidates[i];
    const Box box = box_of(x + c.dx, y + c.dy, c.anchor, width);
    if (box.width * box.height - box.overlap(area_) > 0.5) continue;
    double cost = static_cast<double>(i);
    bool covers = false;
    for (const Obstacle& obstacle : obstacles_) {
      const double overlap = box.overlap(obstacle.box);
      covers = covers || (obstacle.weight == 1.0 && overlap > 1.0);
      cost += overlap * obstacle.weight;
    }
    if (covers || (best && cost >= best_cost)) continue;
    best = Place{x + c.dx, y + c.dy, c.anchor, i >= kNear};
    best_cost = cost;
  }
  if (best) avoid(box_of(best->x, best->y, best->anchor, width));
  return best;
}

}  // namespace quern::plot
