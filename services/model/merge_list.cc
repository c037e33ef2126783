#include "services/model/merge_list.h"

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {

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
