#include "services/finetuner/trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"
#include "services/finetuner/tensor_file.h"

namespace onegrid::finetuner {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kAdamEps = 1e-8;
constexpr double kPi = 3.14159265358979323846;
// Keeps the dropout stream apart from the stream that made the adapter.
constexpr uint64_t kDropoutSeed = 0x9e3779b97f4a7c15;

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

int64_t TotalSteps(const TuningOptions& options, size_t sequences) {
  if (options.max_steps > 0) return options.max_steps;
  const double total = options.epochs * static_cast<double>(sequences) /
                       static_cast<double>(options.sequences_per_step);
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(total - 1e-9)));
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
  return peak * 0.5 * (1.0 + std::cos(kPi * done));
}

double AccumulateGradients(const Gemma3Model& model, LoraAdapter* adapter,
                           const PackedSequence& sequence, int64_t label_count,
                           at::Generator* dropout_random) {
  const Labels labels = LabelsOf(sequence);
  if (labels.rows.empty()) return 0;
  const AttentionLayout layout = MakeAttentionLayout(sequence);
  ForwardOptions options;
  options.adapter = adapter;
  options.dropout_random = dropout_random;
  const at::Tensor x = model.Forward(sequence, layout, options);
  const at::Tensor loss = HeadLossSum(model.FinalHidden(x, labels.rows),
                                      model.head(), labels.targets);
  torch::autograd::backward(
      {loss},
      {at::scalar_tensor(1.0 / static_cast<double>(label_count), at::kDouble)});
  return loss.item<double>();
}

Trainer::Trainer(const Gemma3Model& model, LoraAdapter* adapter,
                 absl::Span<const TokenizedExample> examples,
                 const TuningOptions& options)
    : model_(model),
      adapter_(adapter),
      examples_(examples),
      options_(options),
      first_moment_(at::zeros_like(adapter->parameters())),
      second_moment_(at::zeros_like(adapter->parameters())),
      dropout_random_(
          at::detail::createCPUGenerator(options.seed ^ kDropoutSeed)) {
  PackEpoch(0);
  total_steps_ = TotalSteps(options_, sequences_.size());
  adapter_->Refresh(model_.compute_type());
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

absl::StatusOr<StepMetrics> Trainer::Step(
    const std::function<bool()>& cancelled) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<const PackedSequence*> batch = NextSequences();
  StepMetrics metrics;
  for (const PackedSequence* sequence : batch) {
    metrics.labels += sequence->label_count();
    metrics.tokens += sequence->size();
  }
  at::Tensor gradient = adapter_->gradients();
  gradient.zero_();
  double loss_sum = 0;
  for (const PackedSequence* sequence : batch) {
    if (cancelled()) return absl::CancelledError("tuning was cancelled");
    loss_sum += AccumulateGradients(model_, adapter_, *sequence, metrics.labels,
                                    &dropout_random_);
  }
  metrics.loss = loss_sum / static_cast<double>(metrics.labels);
  metrics.grad_norm = gradient.norm().item<double>();
  if (!std::isfinite(metrics.loss) || !std::isfinite(metrics.grad_norm)) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "TRAINING_DIVERGED",
        absl::StrCat("loss or gradient is not finite at step ", step_ + 1,
                     "; a smaller learning_rate may help"),
        {{"step", absl::StrCat(step_ + 1)}});
  }
  if (options_.max_grad_norm > 0 &&
      metrics.grad_norm > options_.max_grad_norm) {
    gradient.mul_(options_.max_grad_norm / metrics.grad_norm);
  }
  metrics.learning_rate = LearningRateAt(
      step_, total_steps_, options_.learning_rate, options_.warmup_ratio);
  next_sequence_ += static_cast<int64_t>(batch.size());
  metrics.step = ++step_;
  const double t = static_cast<double>(step_);
  first_moment_.mul_(kBeta1).add_(gradient, 1 - kBeta1);
  second_moment_.mul_(kBeta2).addcmul_(gradient, gradient, 1 - kBeta2);
  at::Tensor parameters = adapter_->parameters();
  parameters.mul_(1 - metrics.learning_rate * options_.weight_decay);
  const at::Tensor divisor =
      (second_moment_ / (1 - std::pow(kBeta2, t))).sqrt_().add_(kAdamEps);
  parameters.addcdiv_(first_moment_, divisor,
                      -metrics.learning_rate / (1 - std::pow(kBeta1, t)));
  adapter_->Refresh(model_.compute_type());
  metrics.seconds = Seconds(std::chrono::steady_clock::now() - start);
  return metrics;
}

std::string Trainer::Fingerprint() const {
  return absl::StrCat(
      "rank=", options_.rank, " alpha=", options_.alpha,
      " dropout=", options_.dropout,
      " targets=", absl::StrJoin(options_.target_modules, ","),
      " parameters=", adapter_->parameters().numel(),
      " examples=", examples_.size(), " steps=", total_steps_,
      " tokens=", options_.sequence_tokens, "x", options_.sequences_per_step,
      " lr=", options_.learning_rate, " warmup=", options_.warmup_ratio,
      " clip=", options_.max_grad_norm, " decay=", options_.weight_decay,
      " seed=", options_.seed);
}

absl::Status Trainer::Save(const std::string& path,
                           const std::string& metrics_jsonl) const {
  TensorFileWriter writer;
  RETURN_IF_ERROR(writer.Add("adapter", adapter_->parameters()));
  RETURN_IF_ERROR(writer.Add("adam.first_moment", first_moment_));
  RETURN_IF_ERROR(writer.Add("adam.second_moment", second_moment_));
  RETURN_IF_ERROR(writer.Add("dropout_random", dropout_random_.get_state()));
  RETURN_IF_ERROR(writer.Add(
      "position", at::tensor({step_, epoch_, next_sequence_}, at::kLong)));
  RETURN_IF_ERROR(writer.Add(
      "metrics_jsonl",
      at::from_blob(const_cast<char*>(metrics_jsonl.data()),
                    {static_cast<int64_t>(metrics_jsonl.size())}, at::kByte)));
  writer.SetMetadata({{"format", "onegrid.tuning-checkpoint.v1"},
                      {"fingerprint", Fingerprint()}});
  return writer.WriteTo(path);
}

absl::Status Trainer::Load(const std::string& path,
                           std::string* metrics_jsonl) {
  ASSIGN_OR_RETURN(const TensorFile file, TensorFile::Open(path));
  const std::string found = file.Metadata("fingerprint");
  if (found != Fingerprint()) {
    return common::MakeError(
        absl::StatusCode::kFailedPrecondition, "CHECKPOINT_MISMATCH",
        absl::StrCat(path, ": checkpoint of another run: ", found,
                     "; this run: ", Fingerprint()),
        {{"found", found}, {"expected", Fingerprint()}});
  }
  ASSIGN_OR_RETURN(const at::Tensor adapter, file.Get("adapter"));
  ASSIGN_OR_RETURN(const at::Tensor first, file.Get("adam.first_moment"));
  ASSIGN_OR_RETURN(const at::Tensor second, file.Get("adam.second_moment"));
  ASSIGN_OR_RETURN(const at::Tensor random, file.Get("dropout_random"));
  ASSIGN_OR_RETURN(const at::Tensor position, file.Get("position"));
  ASSIGN_OR_RETURN(const at::Tensor metrics, file.Get("metrics_jsonl"));
  at::Tensor parameters = adapter_->parameters();
  if (adapter.sizes() != parameters.sizes() ||
      first.sizes() != parameters.sizes() ||
      second.sizes() != parameters.sizes() || position.numel() != 3) {
    return common::MakeError(absl::StatusCode::kDataLoss, "CORRUPT_FILE",
                             absl::StrCat(path, ": tensors of wrong shape"),
                             {{"file", path}});
  }
  const int64_t* at = position.const_data_ptr<int64_t>();
  const int64_t step = at[0], epoch = at[1], next = at[2];
  PackEpoch(epoch);
  if (step < 0 || epoch < 0 || next < 0 ||
      next > static_cast<int64_t>(sequences_.size())) {
    return common::MakeError(absl::StatusCode::kDataLoss, "CORRUPT_FILE",
                             absl::StrCat(path, ": position out of range"),
                             {{"file", path}});
  }
  step_ = step;
  next_sequence_ = next;
  parameters.copy_(adapter);
  first_moment_.copy_(first);
  second_moment_.copy_(second);
  dropout_random_.set_state(random);
  const auto* text =
      reinterpret_cast<const char*>(metrics.const_data_ptr<uint8_t>());
  metrics_jsonl->assign(text, static_cast<size_t>(metrics.numel()));
  adapter_->Refresh(model_.compute_type());
  return absl::OkStatus();
}

}  // namespace onegrid::finetuner
