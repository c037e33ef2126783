#include "services/model/merge_list.h"

#include <algorithm>
#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

bool IsCharacterStart(char c) { return (static_cast<uint8_t>(c) >> 6) != 2; }

}  // namespace

MergeHalves SplitMerge(absl::string_view line) {
  const size_t space = line.find(' ', 1);
  if (space == absl::string_view::npos || space + 1 == line.size()) return {};
  return {line.substr(0, space), line.substr(space + 1)};
}

absl::Status ResolveMerges(const std::string& path, absl::string_view list,
                           absl::Span<const MergeHalves> merges,
                           Vocabulary* vocabulary) {
  if (merges.empty()) {
    return CorruptFile(path, absl::StrCat(list, " is empty"));
  }
  absl::flat_hash_map<absl::string_view, int32_t> ids;
  ids.reserve(vocabulary->tokens.size());
  for (size_t id = 0; id < vocabulary->tokens.size(); ++id) {
    ids.emplace(vocabulary->tokens[id].text, static_cast<int32_t>(id));
  }
  absl::flat_hash_set<std::pair<int32_t, int32_t>> seen;
  seen.reserve(merges.size());
  vocabulary->merges.clear();
  vocabulary->merges.reserve(merges.size());
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    const auto refuse = [&](absl::string_view problem) {
      return CorruptFile(path, absl::StrCat(list, "[", i, "] ", problem));
    };
    if (left.empty() || right.empty()) return refuse("is not of two parts");
    joined.assign(left.data(), left.size());
    joined.append(right.data(), right.size());
    VocabularyMerge merge{};
    const std::pair<absl::string_view, int32_t*> parts[] = {
        {left, &merge.left}, {right, &merge.right}, {joined, &merge.joined}};
    for (const auto& [text, id] : parts) {
      const auto found = ids.find(text);
      if (found == ids.end()) {
        return refuse(id == &merge.joined ? "makes a text that is no token"
                                          : "has a part that is no token");
      }
      *id = found->second;
    }
    if (!seen.insert({merge.left, merge.right}).second) {
      return refuse("repeats an earlier one");
    }
    vocabulary->merges.push_back(merge);
  }
  return absl::OkStatus();
}

absl::Status ResolveMergeLines(const std::string& path, absl::string_view list,
                               absl::Span<const std::string> lines,
                               Vocabulary* vocabulary) {
  std::vector<MergeHalves> merges;
  merges.reserve(lines.size());
  for (const std::string& line : lines) merges.push_back(SplitMerge(line));
  return ResolveMerges(path, list, merges, vocabulary);
}

std::vector<MergeHalves> MergesOfScores(const Vocabulary& vocabulary) {
  absl::flat_hash_set<absl::string_view> normal;
  std::vector<int32_t> order;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.tokens[id].type != TokenType::kNormal) continue;
    normal.insert(vocabulary.tokens[id].text);
    order.push_back(static_cast<int32_t>(id));
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return vocabulary.tokens[a].score > vocabulary.tokens[b].score;
  });
  std::vector<MergeHalves> merges;
  for (const int32_t id : order) {
    const absl::string_view text = vocabulary.tokens[id].text;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if (IsCharacterStart(text[cut]) && normal.contains(text.substr(0, cut)) &&
          normal.contains(text.substr(cut))) {
        merges.emplace_back(text.substr(0, cut), text.substr(cut));
      }
    }
  }
  return merges;
}

absl::Status ScoreByMerges(const std::string& path, Vocabulary* vocabulary) {
  std::vector<VocabularyToken>& tokens = vocabulary->tokens;
  const auto unsupported = [&](const std::string& what) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_TOKENIZER",
        absl::StrCat(path, ": unsupported tokenizer: ", what),
        {{"path", path}});
  };
  // Tokens of other types are found before anything is merged.
  const auto is_normal = [&](int32_t id) {
    return tokens[id].type == TokenType::kNormal;
  };
  std::vector<bool> placed(tokens.size());
  std::vector<int32_t> order;
  size_t merges = 0;
  for (const VocabularyMerge& merge : vocabulary->merges) {
    if (!is_normal(merge.left) || !is_normal(merge.right) ||
        !is_normal(merge.joined)) {
      continue;
    }
    ++merges;
    if (!order.empty() && order.back() == merge.joined) continue;
    if (placed[merge.joined]) {
      return unsupported(absl::StrCat(
          "the merges that make '", tokens[merge.joined].text, "' lie apart"));
    }
    placed[merge.joined] = true;
    order.push_back(merge.joined);
  }
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto token = static_cast<int32_t>(id);
    if (is_normal(token) && !placed[id]) order.push_back(token);
  }
  for (size_t i = 0; i < order.size(); ++i) {
    tokens[order[i]].score = -static_cast<float>(i);
  }
  if (const size_t all = MergesOfScores(*vocabulary).size(); all != merges) {
    return unsupported(
        absl::StrCat(merges, " merges of the ", all, " that its tokens have"));
  }
  vocabulary->kind = TokenizerKind::kScores;
  vocabulary->merges.clear();
  vocabulary->mask_id = -1;
  return absl::OkStatus();
}

std::vector<std::string> MergeLines(const Vocabulary& vocabulary) {
  std::vector<std::string> lines;
  lines.reserve(vocabulary.merges.size());
  for (const VocabularyMerge& merge : vocabulary.merges) {
    lines.push_back(absl::StrCat(vocabulary.tokens[merge.left].text, " ",
                                 vocabulary.tokens[merge.right].text));
  }
  return lines;
}

}  // namespace onegrid::model
