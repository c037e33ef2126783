// A random two-layer Gemma 3 on the grid, for tests: one sliding and one global
// layer, grouped heads, a window shorter than the test sequences.
#ifndef SERVICES_FINETUNER_TINY_MODEL_H_
#define SERVICES_FINETUNER_TINY_MODEL_H_

#include <cstdint>
#include <vector>

#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

inline constexpr int64_t kTinyVocab = 96;
inline constexpr int64_t kTinyWindow = 6;

GridCheckpoint MakeTinyCheckpoint(uint64_t seed);

// Random examples of 5 to 5 + spread tokens, of which the last 3 are labels.
std::vector<TokenizedExample> MakeTinyExamples(int count, int spread,
                                               uint64_t seed);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TINY_MODEL_H_
