#include "services/inference/draft_policy.h"

#include <algorithm>

namespace onegrid::inference {
namespace {

// Weight that a step loses with each that follows: some 30 count.
constexpr double kStepDecay = 0.97;
// Before steps of different sizes were seen, a row more is taken to cost this
// share of a step of one row.
constexpr double kUnknownSlope = 0.125;
// The same for guesses that ran, and for those that were left out: after some
// 70 steps a record counts half.
constexpr double kTriedDecay = 0.9;
constexpr double kSkippedDecay = 0.99;
// As if so many guesses had been tried, half of them right.
constexpr double kPriorTried = 2;
// What a forecast must promise: less is within its error.
constexpr double kLeastGain = 1.03;

}  // namespace

void StepCost::Add(int rows, double seconds) {
  const double x = rows;
  count_ = kStepDecay * count_ + 1;
  rows_ = kStepDecay * rows_ + x;
  seconds_ = kStepDecay * seconds_ + seconds;
  rows_squared_ = kStepDecay * rows_squared_ + x * x;
  product_ = kStepDecay * product_ + x * seconds;
}

double StepCost::Seconds(int rows) const {
  if (count_ == 0) return 1 + kUnknownSlope * (rows - 1);
  const double mean_rows = rows_ / count_, mean_seconds = seconds_ / count_;
  const double variance = rows_squared_ / count_ - mean_rows * mean_rows;
  const double one_row = mean_seconds / (1 + kUnknownSlope * (mean_rows - 1));
  double slope = kUnknownSlope * one_row;
  if (variance > 1e-3) {
    slope = (product_ / count_ - mean_rows * mean_seconds) / variance;
  }
  // A step never costs less for more rows, nor less than nothing for none.
  slope = std::clamp(slope, 0.0, mean_seconds / mean_rows);
  return mean_seconds + slope * (rows - mean_rows);
}

void DraftRecord::Add(int tried, int accepted) {
  if (tried == 0) return;
  // What followed the first wrong guess says nothing.
  tried_ = kTriedDecay * tried_ + std::min(tried, accepted + 1);
  accepted_ = kTriedDecay * accepted_ + accepted;
}

double DraftRecord::acceptance() const {
  return (accepted_ + kPriorTried / 2) / (tried_ + kPriorTried);
}

int DraftRecord::Choose(int available, int rows, const StepCost& cost) {
  const double chance = acceptance();
  const double plain = rows / cost.Seconds(rows);
  double best_speed = kLeastGain * plain;
  int best = 0;
  double tokens = rows, all_right = 1;
  for (int count = 1; count <= available; ++count) {
    all_right *= chance;
    tokens += all_right;
    const double speed = tokens / cost.Seconds(rows + count);
    if (speed <= best_speed) continue;
    best_speed = speed;
    best = count;
  }
  if (best == 0 && available > 0) {
    tried_ *= kSkippedDecay;
    accepted_ *= kSkippedDecay;
  }
  return best;
}

}  // namespace onegrid::inference
