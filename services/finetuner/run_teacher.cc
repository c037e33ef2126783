#include "services/finetuner/run_teacher.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/log.h"

namespace onegrid::finetuner {
namespace {

// Labels at which a teacher is asked which tokens a loss should be taken over.
constexpr int64_t kVocabularySample = 4096;

// The model that every stage but the polish is distilled from; empty: none.
std::string NamedPath(const TuningInputs& inputs,
                      const TuningOptions& options) {
  if (options.distillation.kl == 0) return "";
  if (!inputs.teacher.empty() || HasAdapter(options.mode)) {
    return inputs.teacher;
  }
  return inputs.float_base;
}

}  // namespace

absl::Status CheckTeacher(const TuningInputs& inputs,
                          const TuningOptions& options) {
  const int64_t top = options.distillation.vocabulary_top;
  if (top == 0 || !NamedPath(inputs, options).empty()) {
    return absl::OkStatus();
  }
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_HYPERPARAMETER",
      absl::StrCat("distillation.vocabulary_top is ", top,
                   ", but there is no teacher to ask for its most likely "
                   "tokens: name one, or leave it at 0"),
      {{"field", "distillation.vocabulary_top"},
       {"value", absl::StrCat(top)},
       {"range", "0 without a teacher"}});
}

absl::Status RunTeacher::Read(const GemmaModel& model,
                              const LoraAdapter* adapter,
                              const TuningOptions& options, const RunData& data,
                              const TeachProgress& progress) {
  const int64_t top = options.distillation.top;
  if (top == 0) {
    teacher_ = MakeModelTeacher(model, adapter);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(teacher_,
                   MakeCachedTeacher(model, adapter, data.train,
                                     options.sequence_tokens, top, progress));
  return absl::OkStatus();
}

absl::StatusOr<RunTeacher> RunTeacher::Named(const TuningInputs& inputs,
                                             const TuningOptions& options,
                                             const RunData& data,
                                             at::ScalarType compute_type,
                                             const TeachProgress& progress) {
  RunTeacher result;
  const std::string path = NamedPath(inputs, options);
  if (path.empty()) return result;
  ASSIGN_OR_RETURN(result.model_, LoadFloatModel(path, data.checkpoint.config,
                                                 data.longest, compute_type));
  if (const int64_t top = options.distillation.vocabulary_top; top > 0) {
    ASSIGN_OR_RETURN(
        LossVocabulary vocabulary,
        ChooseLossVocabulary(*result.model_, data.shared->head, data.train, top,
                             kVocabularySample, options.seed, progress));
    common::LogInfo("loss_vocabulary", {{"tokens", vocabulary.size()}});
    result.vocabulary_ =
        std::make_unique<LossVocabulary>(std::move(vocabulary));
  }
  RETURN_IF_ERROR(
      result.Read(*result.model_, nullptr, options, data, progress));
  return result;
}

absl::StatusOr<RunTeacher> RunTeacher::Adapted(const GemmaModel& model,
                                               const LoraAdapter& adapter,
                                               const TuningOptions& options,
                                               const RunData& data,
                                               const TeachProgress& progress) {
  RunTeacher result;
  if (options.distillation.kl == 0) return result;
  RETURN_IF_ERROR(result.Read(model, &adapter, options, data, progress));
  return result;
}

Objective RunTeacher::StageObjective(const TuningOptions& options,
                                     bool as_served) const {
  Objective objective;
  objective.as_served = as_served;
  objective.teacher = teacher_.get();
  objective.vocabulary = vocabulary_.get();
  if (teacher_ != nullptr) {
    objective.weights = {options.distillation.cross_entropy,
                         options.distillation.kl};
  }
  return objective;
}

}  // namespace onegrid::finetuner
