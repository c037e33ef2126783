#include "client/cli/pipeline_file.h"

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/common/byte_size.h"
#include "services/common/error_info.h"
#include "services/common/yaml_documents.h"

namespace onegrid::cli {
namespace {

using Setter = std::function<void(const YAML::Node&)>;
// Key -> what to do with its value.
using Section = std::map<std::string, Setter>;

absl::Status Invalid(const std::string& message, const std::string& key,
                     int line) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "PIPELINE_FILE_INVALID",
      line > 0 ? absl::StrCat("line ", line, ": ", message) : message,
      {{"key", key}, {"line", absl::StrCat(line)}});
}

int LineOf(const YAML::Node& node) {
  return node.Mark().is_null() ? 0 : node.Mark().line + 1;
}

template <typename T>
Setter Store(T* target) {
  return [target](const YAML::Node& node) { *target = node.as<T>(); };
}

// For proto fields: calls (message->*set)(value).
template <typename T, typename Message, typename Argument>
Setter Set(Message* message, void (Message::*set)(Argument)) {
  return
      [message, set](const YAML::Node& node) { (message->*set)(node.as<T>()); };
}

template <typename Enum>
Setter SetEnum(const std::map<std::string, Enum>& names,
               std::function<void(Enum)> set) {
  return [names, set](const YAML::Node& node) {
    const std::string name = absl::AsciiStrToLower(node.as<std::string>());
    const auto found = names.find(name);
    if (found == names.end()) {
      std::vector<std::string> known;
      for (const auto& entry : names) known.push_back(entry.first);
      throw YAML::RepresentationException(
          node.Mark(), absl::StrCat("\"", name, "\" is not one of ",
                                    absl::StrJoin(known, ", ")));
    }
    set(found->second);
  };
}

// A list of {modules: PATTERN, rank: N, alpha: X}; rank or alpha may be
// missing.
void AddPatterns(const YAML::Node& list, v1::LoraSpec* lora) {
  for (const YAML::Node& entry : list) {
    v1::LoraPattern* pattern = lora->add_patterns();
    for (const auto& field : entry) {
      const auto key = field.first.as<std::string>();
      if (key == "modules") {
        pattern->set_modules(field.second.as<std::string>());
      } else if (key == "rank") {
        pattern->set_rank(field.second.as<int32_t>());
      } else if (key == "alpha") {
        pattern->set_alpha(field.second.as<double>());
      } else {
        throw YAML::RepresentationException(
            field.first.Mark(),
            absl::StrCat("\"", key, "\" is not modules, rank or alpha"));
      }
    }
  }
}

class Parser {
 public:
  explicit Parser(std::string folder) : folder_(std::move(folder)) {}

  absl::StatusOr<PipelineFile> Parse(const YAML::Node& root) {
    if (!root.IsMap()) {
      return Invalid("a pipeline file is a map of sections", "", LineOf(root));
    }
    for (const auto& entry : root) {
      const std::string name = entry.first.as<std::string>();
      if (absl::Status status = ReadSection(name, entry.first, entry.second);
          !status.ok()) {
        return status;
      }
    }
    for (const auto& [key, value] :
         {std::pair<std::string, std::string>{"name", file_.name},
          {"base_model.id", file_.base_model_id},
          {"dataset.id", file_.dataset_id},
          {"dataset.train", file_.train_path},
          {"dataset.validation", file_.validation_path},
          {"dataset.test", file_.test_path}}) {
      if (value.empty()) return Invalid("missing key " + key, key, 0);
    }
    if (file_.keep_adapter && file_.adapter_path.empty()) {
      return Invalid("tune.keep_adapter is for an adapter of tune.adapter",
                     "tune.keep_adapter", 0);
    }
    return std::move(file_);
  }

 private:
  Setter StorePath(std::string* target) {
    return [this, target](const YAML::Node& node) {
      const std::filesystem::path path(node.as<std::string>());
      *target = path.is_absolute() ? path.string()
                                   : (std::filesystem::path(folder_) / path)
                                         .lexically_normal()
                                         .string();
    };
  }

  Section TuneSection() {
    v1::TuningJob* job = file_.run.mutable_tuning_job();
    v1::LoraSpec* lora = job->mutable_lora();
    v1::Hyperparameters* h = job->mutable_hyperparameters();
    v1::GridSpec* grid = job->mutable_grid();
    v1::DistillationSpec* teacher = job->mutable_distillation();
    using H = v1::Hyperparameters;
    using G = v1::GridSpec;
    using D = v1::DistillationSpec;
    return {
        {"mode", SetEnum<v1::TuningMode>(
                     {{"qlora", v1::QLORA},
                      {"qlora_fold", v1::QLORA_FOLD},
                      {"qlora_qat", v1::QLORA_QAT},
                      {"lr_qat", v1::LR_QAT},
                      {"peqa", v1::PEQA},
                      {"full_qat", v1::FULL_QAT}},
                     [job](v1::TuningMode mode) { job->set_mode(mode); })},
        {"seed", Set<int64_t>(job, &v1::TuningJob::set_seed)},
        {"max_attempts", Set<int32_t>(job, &v1::TuningJob::set_max_attempts)},
        {"rank", Set<int32_t>(lora, &v1::LoraSpec::set_rank)},
        {"alpha", Set<double>(lora, &v1::LoraSpec::set_alpha)},
        {"adapter", StorePath(&file_.adapter_path)},
        {"keep_adapter", Store(&file_.keep_adapter)},
        {"dropout", Set<double>(lora, &v1::LoraSpec::set_dropout)},
        {"target_modules",
         [lora](const YAML::Node& node) {
           for (const auto& name : node.as<std::vector<std::string>>()) {
             lora->add_target_modules(name);
           }
         }},
        {"lora_patterns",
         [lora](const YAML::Node& node) { AddPatterns(node, lora); }},
        {"use_rslora", Set<bool>(lora, &v1::LoraSpec::set_use_rslora)},
        {"lora_plus_ratio",
         Set<double>(lora, &v1::LoraSpec::set_lora_plus_ratio)},
        {"use_dora", Set<bool>(lora, &v1::LoraSpec::set_use_dora)},
        {"train_on",
         SetEnum<v1::TrainOn>(
             {{"all", v1::ALL_ANSWERS}, {"last", v1::LAST_ANSWER}},
             [h](v1::TrainOn train_on) { h->set_train_on(train_on); })},
        {"max_steps", Set<int32_t>(h, &H::set_max_steps)},
        {"max_examples", Set<int64_t>(h, &H::set_max_examples)},
        {"epochs", Set<double>(h, &H::set_epochs)},
        {"sequence_tokens", Set<int32_t>(h, &H::set_sequence_tokens)},
        {"sequences_per_step", Set<int32_t>(h, &H::set_sequences_per_step)},
        {"learning_rate", Set<double>(h, &H::set_learning_rate)},
        {"warmup_ratio", Set<double>(h, &H::set_warmup_ratio)},
        {"max_grad_norm", Set<double>(h, &H::set_max_grad_norm)},
        {"weight_decay", Set<double>(h, &H::set_weight_decay)},
        {"checkpoint_steps", Set<int32_t>(h, &H::set_checkpoint_steps)},
        {"fold_examples", Set<int32_t>(h, &H::set_fold_examples)},
        {"threads", Set<int32_t>(h, &H::set_threads)},
        {"eval_steps", Set<int32_t>(h, &H::set_eval_steps)},
        {"eval_examples", Set<int32_t>(h, &H::set_eval_examples)},
        {"early_stopping_patience",
         Set<int32_t>(h, &H::set_early_stopping_patience)},
        {"polish_steps", Set<int32_t>(grid, &G::set_polish_steps)},
        {"polish_ratio", Set<double>(grid, &G::set_polish_ratio)},
        {"scale_learning_rate", Set<double>(grid, &G::set_scale_learning_rate)},
        {"weight_learning_rate",
         Set<double>(grid, &G::set_weight_learning_rate)},
        {"grid_rank", Set<int32_t>(grid, &G::set_rank)},
        {"plan",
         [grid](const YAML::Node& node) {
           grid->set_plan(node.as<std::string>());
         }},
        {"float_activations", Set<bool>(grid, &G::set_float_activations)},
        {"teacher",
         [teacher](const YAML::Node& node) {
           teacher->set_teacher("baseModels/" + node.as<std::string>());
         }},
        {"cross_entropy_weight",
         Set<double>(teacher, &D::set_cross_entropy_weight)},
        {"kl_weight", Set<double>(teacher, &D::set_kl_weight)},
        {"teacher_top", Set<int32_t>(teacher, &D::set_top)},
        {"vocabulary_top", Set<int32_t>(teacher, &D::set_vocabulary_top)},
        {"precision", SetEnum<H::Precision>({{"auto", H::AUTO},
                                             {"f32", H::PRECISION_F32},
                                             {"bf16", H::PRECISION_BF16}},
                                            [h](H::Precision precision) {
                                              h->set_precision(precision);
                                            })},
    };
  }

  Section VerifySection() {
    v1::EquivalenceThresholds* t = file_.run.mutable_thresholds();
    using T = v1::EquivalenceThresholds;
    return {
        {"probe_text", StorePath(&file_.probe_text_path)},
        {"probe_tokens",
         Set<int32_t>(&file_.run, &v1::PipelineRun::set_probe_tokens)},
        {"kl_float", Set<double>(t, &T::set_kl_float)},
        {"top1_float", Set<double>(t, &T::set_top1_float)},
        {"kl_served", Set<double>(t, &T::set_kl_served)},
        {"top1_served", Set<double>(t, &T::set_top1_served)},
        {"kl_served_arithmetic", Set<double>(t, &T::set_kl_served_arithmetic)},
    };
  }

  // The keys of a section; nullptr when there is no such section.
  const Section* Find(const std::string& name) {
    if (sections_.empty()) {
      sections_["base_model"] = {{"id", Store(&file_.base_model_id)},
                                 {"path", StorePath(&file_.base_model_path)}};
      sections_["dataset"] = {{"id", Store(&file_.dataset_id)},
                              {"train", StorePath(&file_.train_path)},
                              {"validation", StorePath(&file_.validation_path)},
                              {"test", StorePath(&file_.test_path)},
                              {"format", SetEnum<v1::DatasetFormat>(
                                             DatasetFormats(),
                                             [this](v1::DatasetFormat format) {
                                               file_.dataset_format = format;
                                             })},
                              {"drop_invalid", Store(&file_.drop_invalid)}};
      sections_["tune"] = TuneSection();
      sections_["verify"] = VerifySection();
      sections_["export"] = {
          {"max_shard_size", [this](const YAML::Node& node) {
             const auto bytes = common::ParseByteSize(node.as<std::string>());
             if (!bytes.ok()) {
               throw YAML::RepresentationException(
                   node.Mark(), std::string(bytes.status().message()));
             }
             file_.run.set_max_shard_bytes(*bytes);
           }}};
      sections_["evaluate"] = {
          {"base", Set<bool>(&file_.run, &v1::PipelineRun::set_evaluate_base)},
          {"max_examples",
           Set<int64_t>(&file_.run, &v1::PipelineRun::set_max_eval_examples)}};
      sections_["deploy"] = {{"id", [this](const YAML::Node& node) {
                                file_.run.set_deployment_id(
                                    node.as<std::string>());
                              }}};
    }
    const auto found = sections_.find(name);
    return found == sections_.end() ? nullptr : &found->second;
  }

  absl::Status ReadSection(const std::string& name, const YAML::Node& key,
                           const YAML::Node& value) {
    if (name == "name") {
      return Apply(Store(&file_.name), name, value);
    }
    if (name == "prompts") {
      return Apply(Store(&file_.prompts), name, value);
    }
    const Section* section = Find(name);
    if (section == nullptr) {
      return Invalid(
          absl::StrCat("unknown section \"", name,
                       "\"; known: name, base_model, dataset, tune, export, "
                       "verify, evaluate, deploy, prompts"),
          name, LineOf(key));
    }
    if (!value.IsMap()) {
      return Invalid(absl::StrCat("section \"", name, "\" must be a map"), name,
                     LineOf(key));
    }
    for (const auto& entry : value) {
      const std::string field = entry.first.as<std::string>();
      const auto setter = section->find(field);
      if (setter == section->end()) {
        std::vector<std::string> known;
        for (const auto& k : *section) known.push_back(k.first);
        return Invalid(
            absl::StrCat("unknown key \"", field, "\" in section \"", name,
                         "\"; known: ", absl::StrJoin(known, ", ")),
            absl::StrCat(name, ".", field), LineOf(entry.first));
      }
      if (absl::Status status = Apply(
              setter->second, absl::StrCat(name, ".", field), entry.second);
          !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }

  static absl::Status Apply(const Setter& setter, const std::string& key,
                            const YAML::Node& value) {
    try {
      setter(value);
    } catch (const YAML::Exception& error) {
      return Invalid(absl::StrCat(key, ": ", error.msg), key, LineOf(value));
    }
    return absl::OkStatus();
  }

  const std::string folder_;
  PipelineFile file_;
  std::map<std::string, Section> sections_;
};

absl::Status Override(const std::string& text, YAML::Node& root) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (parts.first.empty() || text.find('=') == std::string::npos) {
    return Invalid("--set wants section.key=value, got \"" + text + "\"", text,
                   0);
  }
  const std::vector<std::string> keys = absl::StrSplit(parts.first, '.');
  try {
    if (keys.size() == 1) {
      root[keys[0]] = YAML::Load(parts.second);
    } else if (keys.size() == 2) {
      root[keys[0]][keys[1]] = YAML::Load(parts.second);
    } else {
      return Invalid("--set " + text + ": too many dots", text, 0);
    }
  } catch (const YAML::Exception& error) {
    return Invalid(absl::StrCat("--set ", text, ": ", error.msg), text, 0);
  }
  return absl::OkStatus();
}

}  // namespace

const std::map<std::string, v1::DatasetFormat>& DatasetFormats() {
  static const auto* const formats =
      new std::map<std::string, v1::DatasetFormat>{
          {"prompt_completion", v1::PROMPT_COMPLETION},
          {"messages", v1::MESSAGES},
          {"text", v1::PLAIN_TEXT},
          {"alpaca", v1::ALPACA},
          {"sharegpt", v1::SHAREGPT}};
  return *formats;
}

absl::StatusOr<PipelineFile> ParsePipelineFile(
    const std::string& text, const std::string& folder,
    const std::vector<std::string>& overrides) {
  YAML::Node root;
  try {
    if (common::HasMoreYamlDocuments(text)) {
      return Invalid("a pipeline file is one YAML document, found more", "", 0);
    }
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    return Invalid(error.msg, "", error.mark.line + 1);
  }
  if (!root.IsMap()) {
    return Invalid("a pipeline file is a map of sections", "", 1);
  }
  for (const std::string& override_text : overrides) {
    if (absl::Status status = Override(override_text, root); !status.ok()) {
      return status;
    }
  }
  try {
    return Parser(folder).Parse(root);
  } catch (const YAML::Exception& error) {
    // Values are read in Apply.
    return Invalid("a key is not a text", "", error.mark.line + 1);
  }
}

}  // namespace onegrid::cli
