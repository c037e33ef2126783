#include "services/finetuner/trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/finetuner/grid_rows.h"

namespace onegrid::finetuner {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kPi = 3.14159265358979323846;
// Keeps the dropout stream apart from the stream that made the adapter.
constexpr uint64_t kDropoutSeed = 0x9e3779b97f4a7c15;
constexpr int64_t kParameterGrain = 1 << 16;
constexpr char kFormat[] = "onegrid.tuning-checkpoint.v2";

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

int64_t TotalSteps(const StageOptions& options, size_t sequences) {
  if (options.max_steps > 0) return options.max_steps;
  const double total = options.epochs * static_cast<double>(sequences) /
                       static_cast<double>(options.sequences_per_step);
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(total - 1e-9)));
}

absl::Status Corrupt(const std::string& path, const std::string& what) {
  return common::MakeError(absl::StatusCode::kDataLoss, "CORRUPT_FILE",
                           absl::StrCat(path, ": ", what), {{"file", path}});
}

}  // namespace

double LearningRateAt(int64_t step, int64_t total, double peak,
                      double warmup_ratio) {
  const auto warmup = static_cast<int64_t>(
      std::ceil(warmup_ratio * static_cast<double>(total)));
  if (step < warmup) {
    return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  }
  const double done = static_cast<double>(step - warmup) /
                      static_cast<double>(std::max<int64_t>(1, total - warmup));
  return peak * 0.5 * (1.0 + std::cos(kPi * std::min(1.0, done)));
}

Trainer::Trainer(Tunable* tunable, absl::Span<const TokenizedExample> examples,
                 const StageOptions& options)
    : tunable_(tunable),
      examples_(examples),
      options_(options),
      first_moment_(at::zeros_like(tunable->parameters())),
      second_moment_(at::zeros_like(tunable->parameters())),
      dropout_random_(
          at::detail::createCPUGenerator(options.seed ^ kDropoutSeed)) {
  PackEpoch(0);
  total_steps_ = TotalSteps(options_, sequences_.size());
  tunable_->Refresh();
}

void Trainer::PackEpoch(int64_t epoch) {
  epoch_ = epoch;
  next_sequence_ = 0;
  const uint64_t seed = options_.seed * 1000003 + static_cast<uint64_t>(epoch);
  sequences_ = Pack(examples_,
                    ShuffledOrder(static_cast<int64_t>(examples_.size()), seed),
                    options_.sequence_tokens);
}

std::vector<const PackedSequence*> Trainer::NextSequences() {
  // A step never spans two epochs: the last one of an epoch may be smaller.
  if (next_sequence_ == static_cast<int64_t>(sequences_.size())) {
    PackEpoch(epoch_ + 1);
  }
  std::vector<const PackedSequence*> batch;
  const auto end = std::min(static_cast<int64_t>(sequences_.size()),
                            next_sequence_ + options_.sequences_per_step);
  for (int64_t i = next_sequence_; i < end; ++i) {
    batch.push_back(&sequences_[static_cast<size_t>(i)]);
  }
  return batch;
}

void Trainer::ApplyGradients(double gradient_scale, double learning_rate) {
  const double t = static_cast<double>(step_);
  const float* g = tunable_->gradients().const_data_ptr<float>();
  float* p = tunable_->parameters().mutable_data_ptr<float>();
  float* m = first_moment_.mutable_data_ptr<float>();
  float* v = second_moment_.mutable_data_ptr<float>();
  for (const ParameterSpan& span : tunable_->spans()) {
    const double rate = learning_rate * span.learning_rate_multiplier;
    AdamWCoefficients c;
    c.beta1 = static_cast<float>(kBeta1);
    c.beta2 = static_cast<float>(kBeta2);
    c.keep = static_cast<float>(1 - rate * options_.weight_decay);
    c.step = static_cast<float>(rate / (1 - std::pow(kBeta1, t)));
    c.correction2 = static_cast<float>(1 / (1 - std::pow(kBeta2, t)));
    c.eps = static_cast<float>(options_.adam_eps);
    c.gradient_scale = static_cast<float>(gradient_scale);
    at::parallel_for(
        span.begin, span.end, kParameterGrain, [&](int64_t begin, int64_t end) {
          AdamWRow(g + begin, end - begin, c, p + begin, m + begin, v + begin);
        });
  }
}

absl::StatusOr<StepMetrics> Trainer::Step(
    const std::function<bool()>& cancelled) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<const PackedSequence*> batch = NextSequences();
  StepMetrics metrics;
  for (const PackedSequence* sequence : batch) {
    metrics.labels += sequence->label_count();
    metrics.tokens += sequence->size();
  }
  at::Tensor gradient = tunable_->gradients();
  gradient.zero_();
  LossSums sums;
  for (const PackedSequence* sequence : batch) {
    if (cancelled()) return absl::CancelledError("tuning was cancelled");
    const LossSums one =
        tunable_->AddGradients(*sequence, metrics.labels, &dropout_random_);
    sums.cross_entropy += one.cross_entropy;
    sums.kl += one.kl;
  }
  metrics.loss = sums.cross_entropy / static_cast<double>(metrics.labels);
  metrics.kl = sums.kl / static_cast<double>(metrics.labels);
  metrics.grad_norm = gradient.norm().item<double>();
  if (!std::isfinite(metrics.loss) || !std::isfinite(metrics.grad_norm)) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "TRAINING_DIVERGED",
        absl::StrCat("loss or gradient is not finite at step ", step_ + 1,
                     "; a smaller learning_rate may help"),
        {{"step", absl::StrCat(step_ + 1)}});
  }
  double gradient_scale = 1;
  if (options_.max_grad_norm > 0 &&
      metrics.grad_norm > options_.max_grad_norm) {
    gradient_scale = options_.max_grad_norm / metrics.grad_norm;
  }
  metrics.learning_rate = LearningRateAt(
      step_, total_steps_, options_.learning_rate, options_.warmup_ratio);
  next_sequence_ += static_cast<int64_t>(batch.size());
  metrics.step = ++step_;
  ApplyGradients(gradient_scale, metrics.learning_rate);
  tunable_->Refresh();
  metrics.seconds = Seconds(std::chrono::steady_clock::now() - start);
  return metrics;
}

void Trainer::Offer(double score) {
  if (best_.defined() && !(score < best_score_)) {
    ++offers_since_best_;
    return;
  }
  best_ = tunable_->parameters().clone();
  best_score_ = score;
  best_step_ = step_;
  offers_since_best_ = 0;
}

void Trainer::RestoreBest() {
  if (!best_.defined()) return;
  tunable_->parameters().copy_(best_);
  tunable_->Refresh();
}

std::string Trainer::Fingerprint() const {
  return absl::StrCat(
      tunable_->Fingerprint(), " examples=", examples_.size(),
      " steps=", total_steps_, " tokens=", options_.sequence_tokens, "x",
      options_.sequences_per_step, " lr=", options_.learning_rate,
      " warmup=", options_.warmup_ratio, " clip=", options_.max_grad_norm,
      " decay=", options_.weight_decay, " seed=", options_.seed);
}

absl::Status Trainer::Save(
    const std::string& path, const std::string& stage,
    const std::map<std::string, at::Tensor>& extra) const {
  TensorFileWriter writer;
  RETURN_IF_ERROR(writer.Add("parameters", tunable_->parameters()));
  RETURN_IF_ERROR(writer.Add("adam.first_moment", first_moment_));
  RETURN_IF_ERROR(writer.Add("adam.second_moment", second_moment_));
  RETURN_IF_ERROR(writer.Add("dropout_random", dropout_random_.get_state()));
  RETURN_IF_ERROR(
      writer.Add("position", at::tensor({step_, epoch_, next_sequence_,
                                         best_step_, offers_since_best_},
                                        at::kLong)));
  if (best_.defined()) {
    RETURN_IF_ERROR(writer.Add("best.parameters", best_));
    RETURN_IF_ERROR(writer.Add(
        "best.score", at::tensor({best_score_}, at::kDouble).view(at::kLong)));
  }
  for (const auto& [name, tensor] : extra) {
    RETURN_IF_ERROR(writer.Add(name, tensor));
  }
  writer.SetMetadata({{"format", kFormat},
                      {"stage", stage},
                      {"has_best", best_.defined() ? "1" : "0"},
                      {"fingerprint", Fingerprint()}});
  return writer.WriteTo(path);
}

absl::Status Trainer::Load(const TensorFile& file, const std::string& path) {
  const std::string found = file.Metadata("fingerprint");
  if (file.Metadata("format") != kFormat || found != Fingerprint()) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "CHECKPOINT_MISMATCH",
        absl::StrCat(path, ": checkpoint of another run: ", found,
                     "; this run: ", Fingerprint()),
        {{"found", found}, {"expected", Fingerprint()}});
  }
  ASSIGN_OR_RETURN(const at::Tensor saved, file.Get("parameters"));
  ASSIGN_OR_RETURN(const at::Tensor first, file.Get("adam.first_moment"));
  ASSIGN_OR_RETURN(const at::Tensor second, file.Get("adam.second_moment"));
  ASSIGN_OR_RETURN(const at::Tensor random, file.Get("dropout_random"));
  ASSIGN_OR_RETURN(const at::Tensor position, file.Get("position"));
  at::Tensor best, score;
  if (file.Metadata("has_best") == "1") {
    ASSIGN_OR_RETURN(best, file.Get("best.parameters"));
    ASSIGN_OR_RETURN(score, file.Get("best.score"));
  }
  at::Tensor parameters = tunable_->parameters();
  for (const at::Tensor& tensor : {saved, first, second, best}) {
    if (tensor.defined() && (tensor.scalar_type() != at::kFloat ||
                             tensor.sizes() != parameters.sizes())) {
      return Corrupt(path, "tensors of wrong type or shape");
    }
  }
  if (position.scalar_type() != at::kLong || position.numel() != 5 ||
      random.scalar_type() != at::kByte ||
      random.sizes() != dropout_random_.get_state().sizes() ||
      (score.defined() &&
       (score.scalar_type() != at::kLong || score.numel() != 1))) {
    return Corrupt(path, "tensors of wrong type or shape");
  }
  const int64_t* at = position.const_data_ptr<int64_t>();
  if (at[0] < 0 || at[0] > total_steps_ || at[1] < 0 || at[2] < 0) {
    return Corrupt(path, "position out of range");
  }
  PackEpoch(at[1]);
  if (at[2] > static_cast<int64_t>(sequences_.size())) {
    return Corrupt(path, "position out of range");
  }
  step_ = at[0];
  next_sequence_ = at[2];
  best_step_ = at[3];
  offers_since_best_ = at[4];
  parameters.copy_(saved);
  first_moment_.copy_(first);
  second_moment_.copy_(second);
  dropout_random_.set_state(random);
  best_ = best;
  if (score.defined()) best_score_ = score.view(at::kDouble).item<double>();
  tunable_->Refresh();
  return absl::OkStatus();
}

}  // namespace onegrid::finetuner
