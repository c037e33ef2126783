#include "services/inference/logit_search.h"

#include "absl/algorithm/container.h"

namespace onegrid::inference {
namespace {

// With fewer rows reading the head takes all the time, whatever the bits of the
// activations.
constexpr int kLeastByteRows = 9;
// Share of the head's tiles, over all rows, beyond which the sketch does not
// pay.
constexpr float kMostDoubt = 0.3f;
// What a row takes on English text with Gemma 3 270M: for one logit, 2 to 16
// and more.
constexpr std::array<float, 3> kUsualDoubts = {0.015f, 0.08f, 0.18f};
// Of what was known of the share, what one more call leaves: single tokens can
// take a hundred times as many tiles as others. And one that did not use the
// sketch, so that it is tried again after some hundreds.
constexpr float kMemory = 0.97f;
constexpr float kForgetting = 0.997f;

}  // namespace

LogitSearch::LogitSearch(const cpu::PackedLinear& head, int most_rows,
                         kernels::ThreadPool& pool, kernels::Isa isa, float cap)
    : head_(head), top_(head, pool, isa, cap), doubts_(kUsualDoubts) {
  if (most_rows >= kLeastByteRows) {
    bytes_ = std::make_unique<cpu::ByteProducts>(head, pool, isa);
  }
  if (head.split()) {
    sketch_ = std::make_unique<cpu::SketchProducts>(head, pool, isa);
  }
}

float& LogitSearch::Doubt(int most) {
  return doubts_[most == 1 ? 0 : most <= 16 ? 1 : 2];
}

absl::Span<const std::vector<cpu::TopProduct>> LogitSearch::Find(
    absl::Span<const float> x, absl::Span<const int> counts, float* scratch) {
  bytes_read_ = 0;
  const int most = *absl::c_max_element(counts);
  if (most > kMost) return {};
  const auto rows = static_cast<float>(counts.size());
  const auto tiles = static_cast<float>(head_.tile_count());
  const auto read = [&](int64_t coarse) {
    bytes_read_ =
        coarse + top_.tiles_computed() * (head_.bytes() / head_.tile_count());
  };
  if (float& doubt = Doubt(most); !learnt()) {
    // Also where it would not be used: memory is taken soon or never.
    sketch_->Learn(x);
  } else if (sketch_ != nullptr && rows * doubt <= kMostDoubt) {
    const auto found = top_.Find(*sketch_, x, counts, scratch);
    const float seen =
        static_cast<float>(top_.tiles_computed()) / (rows * tiles);
    doubt = kMemory * doubt + (1 - kMemory) * seen;
    read(cpu::SketchProducts::BytesFor(head_));
    return found;
  } else {
    doubt *= kForgetting;
  }
  if (bytes_ == nullptr || counts.size() < kLeastByteRows) return {};
  const auto found = top_.Find(*bytes_, x, counts, scratch);
  read(head_.bytes());
  return found;
}

}  // namespace onegrid::inference
