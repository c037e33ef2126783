#include "services/model/chat_format.h"

#include <cstddef>
#include <iterator>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "services/common/files.h"

namespace onegrid::model {
namespace {

constexpr TurnMarks kMarks3 = {"<start_of_turn>", "<end_of_turn>"};
constexpr TurnMarks kMarks4 = {"<|turn>", "<turn|>"};

// In the order of ChatFormat.
constexpr ChatRules kRules[] = {
    {"gemma3", kMarks3, false, false, false, false, false, false},
    {"gemma4", kMarks4, true, true, false, true, false, false},
    {"gemma4-empty-thought", kMarks4, true, true, true, true, false, false},
    {"gemma4-second", kMarks4, true, true, false, true, true, true},
    {"gemma4-second-empty-thought", kMarks4, true, true, true, true, true,
     true},
    {"gemma4-first", kMarks4, true, false, false, false, false, false},
    {"gemma4-first-empty-thought", kMarks4, true, false, true, false, false,
     false}};

// Of the family's instruction-tuned models; of the text as it is in them.
constexpr char kGemma3Sha256[] =
    "7de1c58e208eda46e9c7f86397df37ec49883aeece39fb961e0a6b24088dd3c4";

// Digests of AsJinjaReads without the lines of the empty thought.
constexpr struct {
  const char* sha256;
  ChatFormat format;
  ChatFormat with_empty_thought;
} kGemma4Templates[] = {
    // Google's of April 2026, 12,044 bytes.
    {"55572b8d3c8342044e25874c73fe5234b661fa0a57a57f6ef75b58e03d7d959a",
     ChatFormat::kGemma4First, ChatFormat::kGemma4FirstEmptyThought},
    // Google's as llama.cpp has it in models/templates, 16,448 bytes.
    {"781d10940fbc44be40064b5d43a056fc486c84ceaa55538226368b57314132bf",
     ChatFormat::kGemma4Second, ChatFormat::kGemma4SecondEmptyThought},
    // Google's of May 2026: 16,934 bytes.
    {"33204f1acb5bd0002713e16a593847f24ceeafe711ed88bda2a352dc996a3373",
     ChatFormat::kGemma4, ChatFormat::kGemma4EmptyThought},
    // Later in May, schemas without a type or with their parts missing: 17,187
    // bytes.
    {"008a8119a99455260cfc11b6e4c3c349ba17f9a8150b3f9f68c26eebc844cfa9",
     ChatFormat::kGemma4, ChatFormat::kGemma4EmptyThought}};

// Jinja makes every end of line "\n" and drops the last one.
std::string AsJinjaReads(absl::string_view text) {
  std::string lines = absl::StrReplaceAll(text, {{"\r\n", "\n"}});
  if (!lines.empty() && lines.back() == '\n') lines.pop_back();
  return lines;
}

// Takes out the three lines that render an empty thought where the model is not
// to think; false if there are none.
bool TakeOutEmptyThought(std::string* text) {
  std::vector<std::string> lines = absl::StrSplit(*text, '\n');
  constexpr const char* kBlock[] = {
      "{%- if not enable_thinking | default(false) -%}",
      R"({{- '<|channel>thought\n<channel|>' -}})", "{%- endif -%}"};
  for (size_t i = 0; i + 3 <= lines.size(); ++i) {
    bool equal = true;
    for (size_t k = 0; k < 3; ++k) {
      equal = equal && absl::StripAsciiWhitespace(lines[i + k]) == kBlock[k];
    }
    if (!equal) continue;
    const auto begin = lines.begin() + static_cast<std::ptrdiff_t>(i);
    lines.erase(begin, begin + 3);
    *text = absl::StrJoin(lines, "\n");
    return true;
  }
  return false;
}

}  // namespace

const ChatRules& RulesOf(ChatFormat format) {
  return kRules[static_cast<size_t>(format)];
}

std::optional<ChatFormat> ChatFormatNamed(absl::string_view name) {
  for (size_t i = 0; i < std::size(kRules); ++i) {
    if (name == kRules[i].name) return static_cast<ChatFormat>(i);
  }
  return std::nullopt;
}

std::string ChatFormatNames() {
  return absl::StrJoin(kRules, ", ", [](std::string* out, const auto& rules) {
    out->append(rules.name);
  });
}

std::optional<ChatFormat> FormatOfTemplate(absl::string_view jinja) {
  std::string text = AsJinjaReads(jinja);
  for (const char* end : {"", "\n"}) {
    const std::string gemma3 = text + end;
    if (common::Sha256Of(gemma3) == kGemma3Sha256) return ChatFormat::kGemma3;
  }
  const bool empty_thought = TakeOutEmptyThought(&text);
  const std::string sha256 = common::Sha256Of(text);
  for (const auto& known : kGemma4Templates) {
    if (sha256 != known.sha256) continue;
    return empty_thought ? known.with_empty_thought : known.format;
  }
  return std::nullopt;
}

ChatFormat DefaultChatFormat(const GemmaConfig& config) {
  if (config.family == GemmaFamily::kGemma3) return ChatFormat::kGemma3;
  return config.per_layer_width > 0 ? ChatFormat::kGemma4
                                    : ChatFormat::kGemma4EmptyThought;
}

}  // namespace onegrid::model
