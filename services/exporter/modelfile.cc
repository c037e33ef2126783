#include "services/exporter/modelfile.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace onegrid::exporter {
namespace {

using model::ChatFormat;

// A system message goes before the text of the user's message after it.
constexpr char kGemma3[] =
    R"({{- $system := "" }}{{ $open := true }}
{{- range $i, $message := .Messages }}
{{- $open = ne .Role "assistant" }}
{{- if eq .Role "system" }}{{ $system = printf "%s\n\n" .Content }}
{{- else if eq .Role "user" }}START_user
{{ $system }}{{ .Content }}END
{{ $system = "" }}
{{- else if eq .Role "assistant" }}START_model
{{ .Content }}
{{- if gt (len (slice $.Messages $i)) 1 }}END
{{ end }}
{{- end }}
{{- end }}
{{- if $open }}START_model
{{ end }})";

constexpr char kGemma4[] =
    R"({{- $open := true }}
{{- range $i, $message := .Messages }}
{{- $open = ne .Role "assistant" }}
{{- if eq .Role "assistant" }}START_model
{{ .Content }}
{{- if gt (len (slice $.Messages $i)) 1 }}END
{{ end }}
{{- else }}START_{{ .Role }}
{{ .Content }}END
{{ end }}
{{- end }}
{{- if $open }}START_model
{{ end }})";

ChatFormat FormatOf(PromptStyle style) {
  return style == PromptStyle::kGemma4Chat ? ChatFormat::kGemma4
                                           : ChatFormat::kGemma3;
}

}  // namespace

std::string OllamaTemplate(PromptStyle style) {
  if (style == PromptStyle::kRaw) return "{{ .Prompt }}";
  const model::TurnMarks marks = model::RulesOf(FormatOf(style)).marks;
  return absl::StrReplaceAll(
      style == PromptStyle::kGemma4Chat ? kGemma4 : kGemma3,
      {{"START_", marks.start}, {"END", marks.end}});
}

std::string OllamaModelfile(const std::vector<std::string>& files,
                            PromptStyle style, bool gemma4) {
  std::string out;
  for (const std::string& file : files) {
    absl::StrAppend(&out, "FROM ./", file, "\n");
  }
  absl::StrAppend(&out, "TEMPLATE \"\"\"", OllamaTemplate(style), "\"\"\"\n");
  if (style != PromptStyle::kRaw) {
    absl::StrAppend(&out, "PARAMETER stop \"",
                    model::RulesOf(FormatOf(style)).marks.end, "\"\n");
  }
  absl::StrAppend(&out,
                  "PARAMETER temperature 1.0\n"
                  "PARAMETER top_k 64\n"
                  "PARAMETER top_p 0.95\n"
                  "LICENSE \"\"\"",
                  gemma4 ? "Apache License 2.0: "
                           "https://www.apache.org/licenses/LICENSE-2.0"
                         : "Gemma is provided under and subject to the Gemma "
                           "Terms of Use found at https://ai.google.dev/gemma/"
                           "terms",
                  "\"\"\"\n");
  return out;
}

}  // namespace onegrid::exporter
