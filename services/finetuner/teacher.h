// Where a student's target distributions come from.
#ifndef SERVICES_FINETUNER_TEACHER_H_
#define SERVICES_FINETUNER_TEACHER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/head_loss.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Not thread-safe.
class Teacher {
 public:
  virtual ~Teacher() = default;
  // What it says about the labelled positions of a sequence.
  virtual HeadTeacher Judge(const PackedSequence& sequence,
                            const AttentionLayout& layout,
                            const Labels& labels) = 0;
};

// Runs a model, with its adapter if any, on every sequence it is asked about.
// Both must outlive the teacher.
std::unique_ptr<Teacher> MakeModelTeacher(const GemmaModel& model,
                                          const LoraAdapter* adapter);

// Asks `teacher` once about every example and keeps its `top` most likely
// tokens of each label: 8 * top bytes a label, for runs of several epochs.
// Sequences it is asked about later must be packed from the same examples with
// the same sequence_tokens. Cancelled when `progress`, called after each
// sequence, returns false.
absl::StatusOr<std::unique_ptr<Teacher>> MakeCachedTeacher(
    const GemmaModel& model, const LoraAdapter* adapter,
    absl::Span<const TokenizedExample> examples, int64_t sequence_tokens,
    int64_t top,
    const std::function<bool(int64_t done, int64_t total)>& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TEACHER_H_
