// What the readers of configurations share: bounds on what a file may declare
// (all published sizes are far inside), and what no file says.
#ifndef SERVICES_MODEL_GEMMA_LIMITS_H_
#define SERVICES_MODEL_GEMMA_LIMITS_H_

#include <cstdint>

#include "services/model/gemma_config.h"

namespace onegrid::model {

inline constexpr int64_t kWidthMax = 1 << 20;
inline constexpr int64_t kLayersMax = 1024;
inline constexpr int64_t kExpertsMax = 4096;
inline constexpr int64_t kVocabularyMax = int64_t{1} << 24;
inline constexpr int64_t kPositionsMax = int64_t{1} << 31;
// Gemma 3: every how manieth layer attends globally.
inline constexpr int64_t kDefaultPattern = 6;

// Gemma 3's attention scale is 1 / sqrt of this (query_pre_attn_scalar).
double Gemma3QueryScale(const GemmaConfig& config);
double Gemma3AttentionScale(const GemmaConfig& config);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GEMMA_LIMITS_H_
