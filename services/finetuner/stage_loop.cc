#include "services/finetuner/stage_loop.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "services/common/error_info.h"
#include "services/common/log.h"

namespace onegrid::finetuner {
namespace {

constexpr char kMetrics[] = "metrics_jsonl";

std::string MetricsLine(const std::string& stage, const StepMetrics& metrics,
                        double tokens_per_second) {
  return nlohmann::json({{"stage", stage},
                         {"step", metrics.step},
                         {"loss", metrics.loss},
                         {"kl", metrics.kl},
                         {"lr", metrics.learning_rate},
                         {"grad_norm", metrics.grad_norm},
                         {"tokens", metrics.tokens},
                         {"labels", metrics.labels},
                         {"seconds", metrics.seconds},
                         {"tokens_per_second", tokens_per_second}})
             .dump() +
         "\n";
}

// A stage in progress.
class Loop {
 public:
  Loop(const Stage& stage, std::string* metrics_jsonl)
      : stage_(stage), trainer_(*stage.trainer), metrics_(metrics_jsonl) {}

  absl::StatusOr<StageSpeed> Run();

 private:
  // Scores the parameters unless nothing would choose by it.
  absl::Status Evaluate();
  absl::Status Save();
  void Report(const StepMetrics& metrics);
  bool Exhausted() const {
    return stage_.patience > 0 &&
           trainer_.offers_since_best() >= stage_.patience;
  }

  const Stage& stage_;
  Trainer& trainer_;
  std::string* const metrics_;
  TuningProgress progress_;
  StageSpeed speed_;
  int64_t steps_ = 0;  // In this process.
};

absl::Status Loop::Evaluate() {
  if (!stage_.evaluate) return absl::OkStatus();
  ASSIGN_OR_RETURN(const double score, stage_.evaluate());
  trainer_.Offer(score);
  *metrics_ += nlohmann::json({{"stage", stage_.name},
                               {"step", trainer_.step()},
                               {"validation_loss", score},
                               {"best_step", trainer_.best_step()}})
                   .dump() +
               "\n";
  common::LogInfo("validated", {{"stage", stage_.name},
                                {"step", trainer_.step()},
                                {"loss", score},
                                {"best_step", trainer_.best_step()}});
  return absl::OkStatus();
}

absl::Status Loop::Save() {
  std::map<std::string, at::Tensor> extra = stage_.extra;
  extra[kMetrics] = at::from_blob(
      metrics_->data(), {static_cast<int64_t>(metrics_->size())}, at::kByte);
  RETURN_IF_ERROR(trainer_.Save(stage_.checkpoint_path, stage_.name, extra));
  return stage_.host->OnCheckpoint(progress_, stage_.checkpoint_path);
}

void Loop::Report(const StepMetrics& metrics) {
  speed_.seconds += metrics.seconds;
  speed_.tokens += metrics.tokens;
  ++steps_;
  const double tokens_per_second =
      static_cast<double>(metrics.tokens) / metrics.seconds;
  *metrics_ += MetricsLine(stage_.name, metrics, tokens_per_second);
  progress_.stage = stage_.name;
  progress_.step = metrics.step;
  progress_.total_steps = trainer_.total_steps();
  progress_.eta_seconds =
      speed_.seconds / static_cast<double>(steps_) *
      static_cast<double>(trainer_.total_steps() - metrics.step);
  progress_.metrics = {{"loss", metrics.loss},
                       {"lr", metrics.learning_rate},
                       {"grad_norm", metrics.grad_norm},
                       {"tokens_per_second", tokens_per_second}};
  if (metrics.kl > 0) progress_.metrics["kl"] = metrics.kl;
  if (trainer_.has_best()) {
    progress_.metrics["best_validation_loss"] = trainer_.best_score();
  }
  stage_.host->OnProgress(progress_);
}

absl::StatusOr<StageSpeed> Loop::Run() {
  if (trainer_.step() == 0) RETURN_IF_ERROR(Evaluate());
  while (trainer_.step() < trainer_.total_steps() && !Exhausted()) {
    ASSIGN_OR_RETURN(const StepMetrics metrics, trainer_.Step([this] {
      return stage_.host->cancelled();
    }));
    Report(metrics);
    const bool last = metrics.step == trainer_.total_steps();
    if (last || metrics.step % stage_.eval_steps == 0) {
      RETURN_IF_ERROR(Evaluate());
    }
    if (last || metrics.step % stage_.checkpoint_steps == 0 || Exhausted()) {
      RETURN_IF_ERROR(Save());
    }
  }
  trainer_.RestoreBest();
  return speed_;
}

}  // namespace

absl::StatusOr<StageSpeed> RunStage(const Stage& stage,
                                    std::string* metrics_jsonl) {
  return Loop(stage, metrics_jsonl).Run();
}

absl::StatusOr<std::string> MetricsOf(const TensorFile& file) {
  ASSIGN_OR_RETURN(const at::Tensor bytes, file.Get(kMetrics));
  if (bytes.scalar_type() != at::kByte) {
    return common::MakeError(absl::StatusCode::kDataLoss, "CORRUPT_FILE",
                             "checkpoint: metrics_jsonl has another type", {});
  }
  return std::string(
      reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>()),
      static_cast<size_t>(bytes.numel()));
}

}  // namespace onegrid::finetuner
