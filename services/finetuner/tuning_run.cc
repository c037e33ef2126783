#include "services/finetuner/tuning_run.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/cpu_features.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/log.h"
#include "services/common/thread_count.h"
#include "services/finetuner/evaluate.h"
#include "services/finetuner/fold.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_parameters.h"
#include "services/finetuner/initial_adapter.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/run_data.h"
#include "services/finetuner/run_results.h"
#include "services/finetuner/run_teacher.h"
#include "services/finetuner/stage_loop.h"
#include "services/finetuner/trainer.h"
#include "services/model/gemma_config.h"

namespace onegrid::finetuner {
namespace {

using Clock = std::chrono::steady_clock;

// A stage scores the validation split about this often.
constexpr int64_t kEvaluationsPerStage = 4;
// Names of stages in checkpoints and progress.
constexpr char kLearn[] = "learn";
constexpr char kPolish[] = "polish";
constexpr char kTrain[] = "train";
// The finished adapter, in checkpoints of later stages.
constexpr char kAdapter[] = "adapter";

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

at::ScalarType ComputeType(Precision precision) {
  switch (precision) {
    case Precision::kF32:
      return at::kFloat;
    case Precision::kBf16:
      return at::kBFloat16;
    case Precision::kAuto:
      // Without AVX-512 BF16 the products would be emulated, and slower.
      return kernels::GetCpuFeatures().avx512bf16 ? at::kBFloat16 : at::kFloat;
  }
  return at::kFloat;
}

// A run in progress: each method is one stage.
class Run {
 public:
  Run(const TuningInputs& inputs, const TuningOptions& options,
      const std::string& folder, TuningHost* host)
      : inputs_(inputs), options_(options), folder_(folder), host_(host) {}

  absl::StatusOr<TuningOutputs> All();

 private:
  absl::Status OpenCheckpoint();
  absl::Status Learn();
  absl::Status MakeAdapter();
  absl::Status LearnSteps();
  absl::Status SaveAdapter();
  absl::Status FoldAdapter();
  absl::Status Polish();
  // By linear: true for those that no stage trains.
  std::vector<bool> FixedLinears() const;
  absl::Status TrainGrid();
  // Trains `parameters` with the model they make, and takes their codes.
  absl::Status RunGridStage(const std::string& name, GridParameters parameters,
                            const Objective& objective,
                            const StageOptions& stage_options);
  absl::Status RunTrainer(const std::string& name, Trainer* trainer,
                          const GemmaModel& model,
                          const ForwardOptions& scoring);
  TeachProgress TeachReport();
  absl::Status Finish();
  // Reports progress of a stage of `total` equal parts; false when cancelled.
  bool Report(const std::string& stage, int64_t done, int64_t total,
              Clock::time_point start) {
    return ReportAfter(stage, done, total, SecondsSince(start));
  }
  bool ReportAfter(const std::string& stage, int64_t done, int64_t total,
                   double seconds);
  std::string Path(const std::string& name) const {
    return absl::StrCat(folder_, "/", name);
  }
  bool ResumesAt(const std::string& stage) const {
    return resume_.has_value() && resume_->Metadata("stage") == stage;
  }

  const TuningInputs& inputs_;
  const TuningOptions& options_;
  const std::string folder_;
  TuningHost* const host_;
  RunData data_;
  std::optional<TensorFile> resume_;
  std::unique_ptr<GemmaModel> learn_model_;
  std::optional<LoraAdapter> adapter_;
  std::string metrics_jsonl_;
  StageSpeed speed_;  // Of all stages so far.
  // The linears as they will be exported; empty: there are none.
  std::vector<quant::GridMatrix> tuned_;
  TuningOutputs outputs_;
};

bool Run::ReportAfter(const std::string& stage, int64_t done, int64_t total,
                      double seconds) {
  TuningProgress progress;
  progress.stage = stage;
  progress.step = done;
  progress.total_steps = total;
  if (done > 0) {
    progress.eta_seconds =
        seconds * static_cast<double>(total - done) / static_cast<double>(done);
  }
  host_->OnProgress(progress);
  return !host_->cancelled();
}

absl::Status Run::OpenCheckpoint() {
  if (inputs_.resume_from.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(TensorFile file, TensorFile::Open(inputs_.resume_from));
  resume_.emplace(std::move(file));
  const std::string stage = resume_->Metadata("stage");
  const bool fits = HasAdapter(options_.mode)
                        ? stage == kLearn || stage == kPolish
                        : stage == kTrain;
  const bool keeps = options_.initial_adapter == InitialAdapter::kKeep;
  if (!fits || (keeps && stage == kLearn)) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "CHECKPOINT_MISMATCH",
        absl::StrCat(inputs_.resume_from, ": checkpoint of the stage \"", stage,
                     "\", which mode ", ModeName(options_.mode),
                     keeps ? " with an adapter that is kept" : "",
                     " does not have"),
        {{"found", stage}, {"expected", ModeName(options_.mode)}});
  }
  ASSIGN_OR_RETURN(metrics_jsonl_, MetricsOf(*resume_));
  common::LogInfo("tuning_resumed", {{"stage", stage}});
  return absl::OkStatus();
}

TeachProgress Run::TeachReport() {
  return [this, start = Clock::now()](int64_t done, int64_t total) {
    return Report("teach", done, total, start);
  };
}

absl::Status Run::RunTrainer(const std::string& name, Trainer* trainer,
                             const GemmaModel& model,
                             const ForwardOptions& scoring) {
  if (ResumesAt(name)) {
    RETURN_IF_ERROR(trainer->Load(*resume_, inputs_.resume_from));
  }
  Stage stage;
  stage.name = name;
  stage.trainer = trainer;
  stage.host = host_;
  stage.checkpoint_steps = options_.checkpoint_steps;
  stage.checkpoint_path = Path("checkpoint.safetensors");
  stage.patience = options_.patience;
  stage.eval_steps = options_.eval_steps > 0
                         ? options_.eval_steps
                         : std::max<int64_t>(1, (trainer->total_steps() +
                                                 kEvaluationsPerStage - 1) /
                                                    kEvaluationsPerStage);
  if (name != kLearn && adapter_.has_value()) {
    stage.extra[kAdapter] = adapter_->parameters();
  }
  const auto examples =
      absl::MakeConstSpan(data_.validation)
          .subspan(0, static_cast<size_t>(options_.eval_examples));
  if (!examples.empty()) {
    stage.evaluate = [&, examples]() -> absl::StatusOr<double> {
      ASSIGN_OR_RETURN(
          const EvaluationResult result,
          Evaluate(model, scoring, examples, options_.sequence_tokens,
                   [this](int64_t, int64_t) { return !host_->cancelled(); }));
      return std::log(result.perplexity);
    };
  }
  ASSIGN_OR_RETURN(const StageSpeed speed, RunStage(stage, &metrics_jsonl_));
  speed_.tokens += speed.tokens;
  speed_.seconds += speed.seconds;
  if (speed_.seconds > 0) {
    outputs_.tokens_per_second =
        static_cast<double>(speed_.tokens) / speed_.seconds;
  }
  if (trainer->has_best()) {
    outputs_.best_score = trainer->best_score();
    outputs_.best_step = trainer->best_step();
  }
  return absl::OkStatus();
}

absl::Status Run::SaveAdapter() {
  outputs_.adapter = Path("adapter.safetensors");
  RETURN_IF_ERROR(adapter_->SaveTensors(outputs_.adapter));
  outputs_.adapter_config = Path("adapter_config.json");
  return common::WriteFileAtomic(
      outputs_.adapter_config, adapter_->ConfigJson(options_.base_model_name));
}

absl::Status Run::LearnSteps() {
  ASSIGN_OR_RETURN(
      const RunTeacher teacher,
      RunTeacher::Named(inputs_, options_, data_,
                        ComputeType(options_.precision), TeachReport()));
  AdapterTunable tunable(*learn_model_, &*adapter_,
                         teacher.StageObjective(options_, false));
  Trainer trainer(&tunable, data_.train, FirstStage(options_));
  ForwardOptions scoring;
  scoring.adapter = &*adapter_;
  return RunTrainer(kLearn, &trainer, *learn_model_, scoring);
}

absl::Status Run::MakeAdapter() {
  const std::vector<model::LinearSpec>& linears = data_.checkpoint.specs;
  const LoraOptions options = AdapterOptions(options_);
  if (options_.initial_adapter == InitialAdapter::kNone) {
    ASSIGN_OR_RETURN(adapter_,
                     LoraAdapter::Create(linears, options, options_.seed));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(adapter_,
                   LoadInitialAdapter(
                       inputs_.initial_adapter,
                       model::ArchitectureName(data_.checkpoint.config.family),
                       linears, options));
  common::LogInfo("initial_adapter_read",
                  {{"parameters", adapter_->parameters().numel()},
                   {"rank", adapter_->options().rank}});
  return absl::OkStatus();
}

absl::Status Run::Learn() {
  learn_model_ = std::make_unique<GemmaModel>(
      data_.shared, data_.checkpoint.linears, ComputeType(options_.precision));
  RETURN_IF_ERROR(MakeAdapter());
  if (ResumesAt(kPolish)) {
    ASSIGN_OR_RETURN(const at::Tensor saved, resume_->Get(kAdapter));
    if (saved.sizes() != adapter_->parameters().sizes()) {
      return common::MakeError(
          absl::StatusCode::kFailedPrecondition, "CHECKPOINT_MISMATCH",
          absl::StrCat(inputs_.resume_from, ": an adapter of ", saved.numel(),
                       " parameters, this run's has ",
                       adapter_->parameters().numel()),
          {});
    }
    adapter_->parameters().copy_(saved);
    adapter_->Refresh(learn_model_->compute_type());
  } else if (options_.initial_adapter == InitialAdapter::kKeep) {
    adapter_->Refresh(learn_model_->compute_type());
  } else {
    RETURN_IF_ERROR(LearnSteps());
  }
  return SaveAdapter();
}

absl::Status Run::FoldAdapter() {
  const Clock::time_point start = Clock::now();
  std::vector<int64_t> order = ShuffledOrder(
      static_cast<int64_t>(data_.train.size()), options_.seed + 1);
  order.resize(
      std::min(order.size(), static_cast<size_t>(options_.fold_examples)));
  const std::vector<PackedSequence> calibration =
      Pack(data_.train, order, options_.sequence_tokens);
  const int64_t layers = data_.checkpoint.config.layer_count();
  Report("fold", 0, layers, start);
  ASSIGN_OR_RETURN(
      FoldResult folded,
      Fold(data_.checkpoint, *learn_model_, *adapter_, calibration,
           [&](int64_t done) { return Report("fold", done, layers, start); }));
  common::LogInfo("fold_done", {{"seconds", SecondsSince(start)},
                                {"codes_changed", folded.codes_changed}});
  tuned_ = std::move(folded.linears);
  return absl::OkStatus();
}

absl::Status Run::RunGridStage(const std::string& name,
                               GridParameters parameters,
                               const Objective& objective,
                               const StageOptions& stage_options) {
  GemmaModel student(data_.shared, tuned_, ComputeType(options_.precision));
  // What the stages before made of the adapter decides what this one means.
  std::string origin;
  if (adapter_.has_value()) {
    origin = absl::StrCat(
        "adapter ", DescribeLora(adapter_->options()),
        options_.initial_adapter == InitialAdapter::kKeep ? " kept" : "");
  }
  GridTunable tunable(&student, &parameters, objective, std::move(origin));
  Trainer trainer(&tunable, data_.train, stage_options);
  ForwardOptions scoring;
  scoring.as_served = objective.as_served;
  RETURN_IF_ERROR(RunTrainer(name, &trainer, student, scoring));
  tuned_ = parameters.AllQuantized();
  return absl::OkStatus();
}

std::vector<bool> Run::FixedLinears() const {
  const LinearLayout layout(data_.checkpoint.specs);
  std::vector<bool> fixed;
  for (size_t i = 0; i < data_.checkpoint.specs.size(); ++i) {
    fixed.push_back(!layout.InGroup(static_cast<int64_t>(i)));
  }
  return fixed;
}

absl::Status Run::Polish() {
  // The learn stage's length decides, also when it was not run here.
  AdapterTunable learned(*learn_model_, &*adapter_, {});
  const int64_t learn_steps =
      Trainer(&learned, data_.train, FirstStage(options_)).total_steps();
  GridTraining training;
  training.rank = options_.grid.rank;
  training.alpha = 2.0 * static_cast<double>(training.rank);
  training.low_rank_rate = options_.learning_rate / ScaleLearningRate(options_);
  training.seed = options_.seed;
  training.fixed = FixedLinears();
  ASSIGN_OR_RETURN(GridParameters parameters,
                   GridParameters::Create(tuned_, {}, training));
  ASSIGN_OR_RETURN(const RunTeacher teacher,
                   RunTeacher::Adapted(*learn_model_, *adapter_, options_,
                                       data_, TeachReport()));
  return RunGridStage(kPolish, std::move(parameters),
                      teacher.StageObjective(options_, options_.grid.as_served),
                      PolishStage(options_, learn_steps));
}

absl::Status Run::TrainGrid() {
  tuned_ = data_.checkpoint.linears;
  GridTraining training;
  training.seed = options_.seed;
  training.fixed = FixedLinears();
  std::vector<at::Tensor> weights;
  if (options_.mode == TuningMode::kLrQat) {
    training.rank = options_.grid.rank > 0 ? options_.grid.rank : options_.rank;
    training.alpha = 2.0 * static_cast<double>(training.rank);
    training.low_rank_rate =
        options_.learning_rate / ScaleLearningRate(options_);
  } else if (options_.mode == TuningMode::kFullQat) {
    training.latent = true;
    training.latent_rate =
        WeightLearningRate(options_) / ScaleLearningRate(options_);
    if (!inputs_.float_base.empty()) {
      ASSIGN_OR_RETURN(
          FloatCheckpoint floats,
          LoadFloatsOf(inputs_.float_base, data_.checkpoint.specs));
      weights = std::move(floats.linears);
    }
  }
  ASSIGN_OR_RETURN(GridParameters parameters,
                   GridParameters::Create(tuned_, weights, training));
  weights.clear();
  ASSIGN_OR_RETURN(
      const RunTeacher teacher,
      RunTeacher::Named(inputs_, options_, data_,
                        ComputeType(options_.precision), TeachReport()));
  return RunGridStage(kTrain, std::move(parameters),
                      teacher.StageObjective(options_, options_.grid.as_served),
                      FirstStage(options_));
}

absl::Status Run::Finish() {
  outputs_.metrics_jsonl = Path("metrics.jsonl");
  RETURN_IF_ERROR(
      common::WriteFileAtomic(outputs_.metrics_jsonl, metrics_jsonl_));
  return WriteResults(
      inputs_, options_, data_, adapter_.has_value() ? &*adapter_ : nullptr,
      tuned_, folder_,
      [this](const std::string& stage, int64_t done, int64_t total,
             double seconds) {
        return ReportAfter(stage, done, total, seconds);
      },
      &outputs_);
}

absl::StatusOr<TuningOutputs> Run::All() {
  Report("load", 0, 0, Clock::now());
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(
      data_, LoadRunData(inputs_, options_, [&](int64_t done, int64_t total) {
        return Report("plan", done, total, start);
      }));
  outputs_.validation_report = Path("validation_report.json");
  RETURN_IF_ERROR(common::WriteFileAtomic(outputs_.validation_report,
                                          data_.report.ToJson()));
  if (!data_.plan.empty()) {
    RETURN_IF_ERROR(common::WriteFileAtomic(Path("plan.yaml"), data_.plan));
  }
  RETURN_IF_ERROR(OpenCheckpoint());
  if (HasAdapter(options_.mode)) {
    RETURN_IF_ERROR(Learn());
    if (options_.mode != TuningMode::kQlora) RETURN_IF_ERROR(FoldAdapter());
    if (options_.mode == TuningMode::kQloraQat) RETURN_IF_ERROR(Polish());
    learn_model_.reset();
  } else {
    RETURN_IF_ERROR(TrainGrid());
  }
  RETURN_IF_ERROR(Finish());
  return outputs_;
}

}  // namespace

absl::StatusOr<TuningOutputs> RunTuning(const TuningInputs& inputs,
                                        const TuningOptions& options,
                                        const std::string& folder,
                                        TuningHost* host) {
  RETURN_IF_ERROR(ValidateOptions(options));
  RETURN_IF_ERROR(CheckTeacher(inputs, options));
  const common::ThreadCount threads =
      common::ChooseThreadCount(options.threads);
  at::set_num_threads(threads.threads);
  common::LogInfo(
      "tuning_started",
      {{"mode", ModeName(options.mode)},
       {"threads", threads.threads},
       {"threads_from", threads.reason},
       {"precision", at::toString(ComputeType(options.precision))}});
  // The one place where LibTorch's exceptions become a status.
  try {
    return Run(inputs, options, folder, host).All();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what()));
  }
}

}  // namespace onegrid::finetuner
