// The finetuner: a worker for tuning jobs, or one tuning run from files.
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/adapter_files.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/stop_signal.h"
#include "services/common/worker.h"
#include "services/finetuner/data_options.h"
#include "services/finetuner/spin_limit.h"
#include "services/finetuner/tune_work.h"
#include "services/finetuner/tuning_options.h"
#include "services/finetuner/tuning_run.h"
#include "services/model/dataset_format.h"

ABSL_FLAG(std::string, controller, "",
          "host:port of the controller to take work from.");
ABSL_FLAG(std::string, worker_name, "",
          "Stable name of this process. Default: binary and process id.");
ABSL_FLAG(std::string, cache_dir, "",
          "Folder for fetched blobs and scratch files.");
ABSL_FLAG(std::string, host, "127.0.0.1", "Address of the health service.");
ABSL_FLAG(int, port, 0, "Port of the health service; 0 picks a free one.");
ABSL_FLAG(std::string, port_file, "",
          "File that gets the health service's host:port once it serves.");
ABSL_FLAG(int, threads, 0,
          "Compute threads; 0: from affinity and cgroup quota.");

ABSL_FLAG(std::string, base, "",
          "Tune this on-grid GGUF into --out and exit, without a controller.");
ABSL_FLAG(std::string, train, "", "With --base: training split, JSONL.");
ABSL_FLAG(std::string, validation, "", "With --base: validation split.");
ABSL_FLAG(std::string, test, "", "With --base: test split.");
ABSL_FLAG(std::string, data_format, "",
          "With --base: prompt_completion, messages, text, alpaca or sharegpt; "
          "empty: what the first line of each split is.");
ABSL_FLAG(std::string, train_on, "all",
          "With --base: all or last, the answers of a conversation to learn.");
ABSL_FLAG(bool, drop_invalid, false,
          "With --base: leave out lines that cannot be learned, and list them "
          "in validation_report.json; else the split is refused.");
ABSL_FLAG(std::string, probe_text, "",
          "With --base: plain text whose logits are written as a probe.");
ABSL_FLAG(std::string, out, "", "With --base: folder for the outputs.");
ABSL_FLAG(std::string, resume, "", "With --base: checkpoint to go on from.");
ABSL_FLAG(int64_t, rank, 0,
          "With --base: rank of the adapter; 0: 16, or the --adapter's.");
ABSL_FLAG(double, alpha, 0,
          "With --base: LoRA alpha; 0: twice the rank, or the --adapter's.");
ABSL_FLAG(std::string, adapter, "",
          "With --base: LoRA to go on from, a PEFT folder or a GGUF.");
ABSL_FLAG(bool, keep_adapter, false,
          "With --adapter: fold and polish it as it is, without learning.");
ABSL_FLAG(double, dropout, 0, "With --base: LoRA dropout.");
ABSL_FLAG(std::vector<std::string>, target_modules, {},
          "With --base: linear kinds to adapt; empty: all.");
ABSL_FLAG(int64_t, max_steps, 0, "With --base: optimizer steps; 0: --epochs.");
ABSL_FLAG(int64_t, max_examples, 0, "With --base: training examples; 0: all.");
ABSL_FLAG(double, epochs, 1, "With --base: passes over the training split.");
ABSL_FLAG(int64_t, sequence_tokens, 1024,
          "With --base: tokens of a packed sequence.");
ABSL_FLAG(int64_t, sequences_per_step, 2,
          "With --base: packed sequences per optimizer step.");
ABSL_FLAG(double, learning_rate, 1e-3, "With --base: peak learning rate.");
ABSL_FLAG(double, warmup_ratio, 0.05, "With --base: share of warm-up steps.");
ABSL_FLAG(double, max_grad_norm, 1, "With --base: gradient norm bound.");
ABSL_FLAG(double, weight_decay, 0, "With --base: AdamW's weight decay.");
ABSL_FLAG(int64_t, checkpoint_steps, 25,
          "With --base: steps between checkpoints.");
ABSL_FLAG(int64_t, fold_examples, 600,
          "With --base: calibration examples of the fold.");
ABSL_FLAG(int64_t, max_eval_examples, 0,
          "With --base: test examples to evaluate; 0: all.");
ABSL_FLAG(int64_t, probe_tokens, 1500, "With --base: tokens of --probe_text.");
ABSL_FLAG(bool, probe_as_served, false,
          "With --probe_text: write probe_served.safetensors too, by the "
          "served arithmetic.");
ABSL_FLAG(uint64_t, seed, 0, "With --base: seed of everything random.");
ABSL_FLAG(std::string, mode, "qlora_qat",
          "With --base: qlora, qlora_fold, qlora_qat, lr_qat, peqa or "
          "full_qat; services/finetuner/README.md says which when.");
ABSL_FLAG(std::string, float_base, "",
          "With --base: its float weights, a GGUF: where full_qat starts, and "
          "the teacher of the grid modes if no other is given.");
ABSL_FLAG(std::string, teacher, "",
          "With --base: GGUF of the same vocabulary to distill from.");
ABSL_FLAG(double, ce_weight, 1,
          "With --base: weight of the cross-entropy "
          "where there is a teacher.");
ABSL_FLAG(double, kl_weight, 1,
          "With --base: weight of the divergence from "
          "the teacher; 0: no teacher.");
ABSL_FLAG(int64_t, teacher_top, 0,
          "With --base: keep this many of the teacher's tokens of each label; "
          "0: run the teacher in every step.");
ABSL_FLAG(int64_t, vocabulary_top, 0,
          "With --base: with a teacher, take the losses over the labels and "
          "its so many most likely tokens at a sample of them; 0: over the "
          "whole vocabulary.");
ABSL_FLAG(int64_t, polish_steps, 0,
          "With --base: steps of the polish; 0: --polish_ratio.");
ABSL_FLAG(double, polish_ratio, 0.25,
          "With --base: steps of the polish over those of the learn stage.");
ABSL_FLAG(double, scale_learning_rate, 0,
          "With --base: peak relative learning rate of the scales; 0: the "
          "mode's default.");
ABSL_FLAG(double, weight_learning_rate, 0,
          "With --base: full_qat's, in steps of the scale; 0: default.");
ABSL_FLAG(int64_t, grid_rank, 0,
          "With --base: rank of a low-rank change inside the rounding.");
ABSL_FLAG(std::string, plan, "",
          "With --base: plan file, int4, mobile_e2b or auto:BYTES to put the "
          "model on first; empty: tune on the base's own grids.");
ABSL_FLAG(bool, as_served, true,
          "With --base: train the grid with activations and caches rounded as "
          "they are served.");
ABSL_FLAG(int64_t, eval_steps, 0,
          "With --base: steps between evaluations on the validation split; 0: "
          "a quarter of the stage.");
ABSL_FLAG(int64_t, eval_examples, 200,
          "With --base: validation examples that choose the best checkpoint.");
ABSL_FLAG(int64_t, patience, 0,
          "With --base: stop after so many evaluations without a better one; "
          "0: never.");
ABSL_FLAG(std::string, precision, "auto",
          "With --base: auto, f32 or bf16, for the large products.");

namespace onegrid::finetuner {
namespace {

// Activations come and go by the megabyte. By default each would be mapped and
// unmapped, which costs more in page faults than the element-wise work on them:
// let the heap keep them (the first bound is the largest that glibc takes).
void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "finetuner: %s: %s\n",
               common::StatusCodeName(status.code()).c_str(),
               std::string(status.message()).c_str());
  return 1;
}

// Prints progress on stderr: one line that rewrites itself on a terminal.
class ConsoleHost : public TuningHost {
 public:
  bool cancelled() override { return common::StopRequested(); }

  void OnProgress(const TuningProgress& progress) override {
    std::string line = absl::StrCat(progress.stage, " ", progress.step, "/",
                                    progress.total_steps);
    for (const auto& [name, value] : progress.metrics) {
      absl::StrAppend(&line, " ", name, "=", value);
    }
    absl::StrAppend(&line, " eta=", static_cast<int64_t>(progress.eta_seconds),
                    "s");
    const bool terminal = isatty(STDERR_FILENO) != 0;
    std::fprintf(stderr, "%s%s%s", terminal ? "\r\033[K" : "", line.c_str(),
                 terminal && progress.step != progress.total_steps ? "" : "\n");
  }

  absl::Status OnCheckpoint(const TuningProgress&,
                            const std::string&) override {
    return absl::OkStatus();
  }
};

absl::StatusOr<DataOptions> DataOptionsFromFlags() {
  DataOptions data;
  if (const std::string format = absl::GetFlag(FLAGS_data_format);
      !format.empty()) {
    ASSIGN_OR_RETURN(data.format, model::FormatByName(format));
  }
  const std::string train_on = absl::GetFlag(FLAGS_train_on);
  if (train_on == TrainOnName(TrainOn::kLast)) {
    data.train_on = TrainOn::kLast;
  } else if (train_on != TrainOnName(TrainOn::kAll)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--train_on is ", train_on, ", must be all or last"));
  }
  data.drop_invalid = absl::GetFlag(FLAGS_drop_invalid);
  return data;
}

absl::StatusOr<TuningOptions> OptionsFromFlags() {
  TuningOptions options;
  ASSIGN_OR_RETURN(options.data, DataOptionsFromFlags());
  options.rank = absl::GetFlag(FLAGS_rank);
  options.alpha = absl::GetFlag(FLAGS_alpha);
  if (!absl::GetFlag(FLAGS_adapter).empty()) {
    options.initial_adapter = absl::GetFlag(FLAGS_keep_adapter)
                                  ? InitialAdapter::kKeep
                                  : InitialAdapter::kLearn;
  } else if (absl::GetFlag(FLAGS_keep_adapter)) {
    return absl::InvalidArgumentError("--keep_adapter is for an --adapter");
  } else {
    if (options.rank == 0) options.rank = 16;
    if (options.alpha == 0) {
      options.alpha = 2.0 * static_cast<double>(options.rank);
    }
  }
  options.dropout = absl::GetFlag(FLAGS_dropout);
  options.target_modules = absl::GetFlag(FLAGS_target_modules);
  options.max_steps = absl::GetFlag(FLAGS_max_steps);
  options.max_examples = absl::GetFlag(FLAGS_max_examples);
  options.epochs = absl::GetFlag(FLAGS_epochs);
  options.sequence_tokens = absl::GetFlag(FLAGS_sequence_tokens);
  options.sequences_per_step = absl::GetFlag(FLAGS_sequences_per_step);
  options.learning_rate = absl::GetFlag(FLAGS_learning_rate);
  options.warmup_ratio = absl::GetFlag(FLAGS_warmup_ratio);
  options.max_grad_norm = absl::GetFlag(FLAGS_max_grad_norm);
  options.weight_decay = absl::GetFlag(FLAGS_weight_decay);
  options.checkpoint_steps = absl::GetFlag(FLAGS_checkpoint_steps);
  options.fold_examples = absl::GetFlag(FLAGS_fold_examples);
  options.max_eval_examples = absl::GetFlag(FLAGS_max_eval_examples);
  options.probe_tokens = absl::GetFlag(FLAGS_probe_tokens);
  options.probe_as_served = absl::GetFlag(FLAGS_probe_as_served);
  options.seed = absl::GetFlag(FLAGS_seed);
  ASSIGN_OR_RETURN(options.mode, ModeByName(absl::GetFlag(FLAGS_mode)));
  options.distillation = {
      absl::GetFlag(FLAGS_ce_weight), absl::GetFlag(FLAGS_kl_weight),
      absl::GetFlag(FLAGS_teacher_top), absl::GetFlag(FLAGS_vocabulary_top)};
  options.grid.polish_steps = absl::GetFlag(FLAGS_polish_steps);
  options.grid.polish_ratio = absl::GetFlag(FLAGS_polish_ratio);
  options.grid.scale_learning_rate = absl::GetFlag(FLAGS_scale_learning_rate);
  options.grid.weight_learning_rate = absl::GetFlag(FLAGS_weight_learning_rate);
  options.grid.plan = absl::GetFlag(FLAGS_plan);
  if (absl::EndsWith(options.grid.plan, ".yaml") ||
      absl::StrContains(options.grid.plan, '/')) {
    ASSIGN_OR_RETURN(options.grid.plan, common::ReadFile(options.grid.plan));
  }
  options.grid.rank = absl::GetFlag(FLAGS_grid_rank);
  options.grid.as_served = absl::GetFlag(FLAGS_as_served);
  options.eval_steps = absl::GetFlag(FLAGS_eval_steps);
  options.eval_examples = absl::GetFlag(FLAGS_eval_examples);
  options.patience = absl::GetFlag(FLAGS_patience);
  options.threads = absl::GetFlag(FLAGS_threads);
  const std::string precision = absl::GetFlag(FLAGS_precision);
  if (precision == "f32") {
    options.precision = Precision::kF32;
  } else if (precision == "bf16") {
    options.precision = Precision::kBf16;
  } else if (precision != "auto") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--precision is ", precision, ", must be auto, f32 or bf16"));
  }
  return options;
}

nlohmann::json ToJson(const EvaluationResult& result) {
  return {{"accuracy", result.accuracy},
          {"perplexity", result.perplexity},
          {"examples", result.examples},
          {"completion_tokens", result.completion_tokens}};
}

int TuneOnce() {
  const std::string out = absl::GetFlag(FLAGS_out);
  if (out.empty() || absl::GetFlag(FLAGS_train).empty() ||
      absl::GetFlag(FLAGS_test).empty()) {
    return Fail(
        absl::InvalidArgumentError("--base needs --train, --test and --out"));
  }
  const auto options = OptionsFromFlags();
  if (!options.ok()) return Fail(options.status());
  if (const absl::Status made = common::MakeFolder(out); !made.ok()) {
    return Fail(made);
  }
  common::InstallStopSignal();
  TuningInputs inputs;
  inputs.base = absl::GetFlag(FLAGS_base);
  inputs.float_base = absl::GetFlag(FLAGS_float_base);
  inputs.teacher = absl::GetFlag(FLAGS_teacher);
  inputs.train = absl::GetFlag(FLAGS_train);
  inputs.test = absl::GetFlag(FLAGS_test);
  inputs.validation = absl::GetFlag(FLAGS_validation);
  inputs.probe_text = absl::GetFlag(FLAGS_probe_text);
  inputs.resume_from = absl::GetFlag(FLAGS_resume);
  if (const std::string adapter = absl::GetFlag(FLAGS_adapter);
      !adapter.empty()) {
    const auto files = common::FindAdapterFiles(adapter);
    if (!files.ok()) return Fail(files.status());
    inputs.initial_adapter = *files;
  }
  ConsoleHost host;
  const auto outputs = RunTuning(inputs, *options, out, &host);
  if (!outputs.ok()) return Fail(outputs.status());
  const nlohmann::json report = {
      {"tokens_per_second", outputs->tokens_per_second},
      {"codes_changed", outputs->codes_changed},
      {"best_validation_loss", outputs->best_score},
      {"best_step", outputs->best_step},
      {"float_adapter", ToJson(outputs->float_adapter)},
      {"tuned", ToJson(outputs->folded_metrics)}};
  std::printf("%s\n", report.dump(2).c_str());
  return 0;
}

int Work() {
  common::WorkerOptions options;
  options.controller = absl::GetFlag(FLAGS_controller);
  options.worker_name = absl::GetFlag(FLAGS_worker_name);
  options.cache_dir = absl::GetFlag(FLAGS_cache_dir);
  options.kinds = {v1::TUNE};
  options.server.host = absl::GetFlag(FLAGS_host);
  options.server.port = absl::GetFlag(FLAGS_port);
  options.server.port_file = absl::GetFlag(FLAGS_port_file);
  const int threads = absl::GetFlag(FLAGS_threads);
  return common::RunWorker(options, [threads](common::WorkContext& context) {
    return Tune(context, threads);
  });
}

int Main() {
  KeepFreedMemory();
  if (!absl::GetFlag(FLAGS_base).empty()) return TuneOnce();
  if (absl::GetFlag(FLAGS_controller).empty() ||
      absl::GetFlag(FLAGS_cache_dir).empty()) {
    return Fail(absl::InvalidArgumentError(
        "name --controller and --cache_dir, or --base"));
  }
  return Work();
}

}  // namespace
}  // namespace onegrid::finetuner

int main(int argc, char** argv) {
  onegrid::finetuner::LimitSpinning(argv);
  absl::SetProgramUsageMessage(
      "Tunes a model on the grid that it will be served on.\n"
      "  finetuner --controller=HOST:PORT --cache_dir=DIR\n"
      "  finetuner --base=BASE.gguf --train=T.jsonl --test=E.jsonl\n"
      "      [--validation=V.jsonl --probe_text=P.txt] --out=DIR");
  absl::ParseCommandLine(argc, argv);
  return onegrid::finetuner::Main();
}
