#include "services/finetuner/loss_vocabulary.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <limits>

#include "kernels/base/check.h"
#include "services/finetuner/attention.h"

namespace onegrid::finetuner {
namespace {

Head RowsOf(const at::Tensor& embedding, const at::Tensor& ids,
            at::ScalarType compute_type, double softcap) {
  const at::Tensor weight = embedding.index_select(0, ids);
  return {weight, weight.to(compute_type), softcap};
}

// Marks the teacher's favourites at the labels of one example; returns their
// number.
int64_t MarkTop(const GemmaModel& teacher, const TokenizedExample& example,
                int64_t top, std::vector<bool>* wanted) {
  PackedSequence sequence;
  AppendSegment(example, 0, std::numeric_limits<int64_t>::max(), &sequence);
  const AttentionLayout layout = MakeAttentionLayout(sequence);
  const Labels labels = LabelsOf(sequence);
  const TopLogprobs said = ScoreTop(
      teacher.FinalHidden(teacher.Forward(sequence, layout, {}), labels.rows),
      teacher.head(), top);
  const int32_t* ids = said.ids.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < said.ids.numel(); ++i) (*wanted)[ids[i]] = true;
  return static_cast<int64_t>(labels.rows.size());
}

}  // namespace

LossVocabulary::LossVocabulary(const at::Tensor& ids, const at::Tensor& student,
                               const at::Tensor& teacher,
                               at::ScalarType compute_type, double softcap)
    : student_(RowsOf(student, ids, compute_type, softcap)),
      teacher_(RowsOf(teacher, ids, compute_type, softcap)),
      local_(static_cast<size_t>(student.size(0)), -1) {
  const int64_t* tokens = ids.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < ids.numel(); ++i) {
    local_[static_cast<size_t>(tokens[i])] = static_cast<int32_t>(i);
  }
}

std::vector<int32_t> LossVocabulary::Local(
    absl::Span<const int32_t> targets) const {
  std::vector<int32_t> local;
  local.reserve(targets.size());
  for (const int32_t target : targets) {
    local.push_back(local_[static_cast<size_t>(target)]);
    KERNELS_CHECK(local.back() >= 0);
  }
  return local;
}

absl::StatusOr<LossVocabulary> ChooseLossVocabulary(
    const GemmaModel& teacher, const at::Tensor& student_embedding,
    absl::Span<const TokenizedExample> examples, int64_t top,
    int64_t sample_labels, uint64_t seed,
    const std::function<bool(int64_t done, int64_t total)>& progress) {
  const c10::NoGradGuard no_grad;
  const int64_t vocab = student_embedding.size(0);
  std::vector<bool> wanted(static_cast<size_t>(vocab), false);
  for (const TokenizedExample& example : examples) {
    for (const TokenSpan& span : example.labels) {
      for (int64_t i = span.begin; i < span.end; ++i) {
        wanted[static_cast<size_t>(example.tokens[static_cast<size_t>(i)])] =
            true;
      }
    }
  }
  int64_t sampled = 0;
  for (const int64_t i :
       ShuffledOrder(static_cast<int64_t>(examples.size()), seed)) {
    if (sampled >= sample_labels) break;
    sampled += MarkTop(teacher, examples[static_cast<size_t>(i)],
                       std::min(top, vocab), &wanted);
    if (!progress(std::min(sampled, sample_labels), sample_labels)) {
      return absl::CancelledError("tuning was cancelled");
    }
  }
  std::vector<int64_t> ids;
  for (int64_t token = 0; token < vocab; ++token) {
    if (wanted[static_cast<size_t>(token)]) ids.push_back(token);
  }
  return LossVocabulary(at::tensor(ids, at::kLong), student_embedding,
                        teacher.head().weight, teacher.compute_type(),
                        teacher.head().softcap);
}

}  // namespace onegrid::finetuner
