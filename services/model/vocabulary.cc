#include "services/model/vocabulary.h"

#include <cmath>
#include <cstddef>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/model/mapped_file.h"
#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

constexpr char kEscapedSpace[] = "\xe2\x96\x81";  // U+2581

}  // namespace

absl::Status CheckTokens(const std::string& path, absl::string_view list,
                         const Vocabulary& vocabulary) {
  absl::flat_hash_set<absl::string_view> texts;
  bool has_byte[256] = {};
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const VocabularyToken& token = vocabulary.tokens[id];
    const std::string where = absl::StrCat(list, "[", id, "]");
    if (token.text.empty()) {
      return CorruptFile(path, absl::StrCat(where, " is empty"));
    }
    if (!texts.insert(token.text).second) {
      return CorruptFile(path,
                         absl::StrCat(where, " has the text of another token"));
    }
    if (vocabulary.kind == TokenizerKind::kMerges && !IsValidUtf8(token.text)) {
      return CorruptFile(path, absl::StrCat(where, " is not UTF-8"));
    }
    if (!std::isfinite(token.score)) {
      return CorruptFile(path,
                         absl::StrCat(where, ": its score is not finite"));
    }
    const int32_t type = static_cast<int32_t>(token.type);
    if (type < 1 || type > 6) {
      return CorruptFile(path, absl::StrCat(where,
                                            ": expected a token type 1 to 6, "
                                            "found ",
                                            type));
    }
    if (token.type == TokenType::kByte) {
      const int byte = ByteOfToken(token.text);
      if (byte < 0) {
        return CorruptFile(path,
                           absl::StrCat(where,
                                        ": a byte token is not named <0x00> to "
                                        "<0xFF>"));
      }
      has_byte[byte] = true;
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!has_byte[byte]) {
      return CorruptFile(path,
                         absl::StrCat(list, ": no token for byte ", byte));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckUnknown(const std::string& path,
                          const Vocabulary& vocabulary) {
  const int32_t id = vocabulary.unknown_id;
  const VocabularyToken& token = vocabulary.tokens[static_cast<size_t>(id)];
  if (token.type != TokenType::kByte) return absl::OkStatus();
  return CorruptFile(path, absl::StrCat("the unknown token, id ", id,
                                        ", is the byte token ", token.text));
}

int ByteOfToken(const std::string& text) {
  if (text.size() != 6 || text.compare(0, 3, "<0x") != 0 || text[5] != '>') {
    return -1;
  }
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    if (c >= '0' && c <= '9') {
      value = value * 16 + (c - '0');
    } else if (c >= 'A' && c <= 'F') {
      value = value * 16 + (c - 'A' + 10);
    } else {
      return -1;
    }
  }
  return value;
}

std::string EscapeSpaces(const std::string& text) {
  return absl::StrReplaceAll(text, {{" ", kEscapedSpace}});
}

std::string UnescapeSpaces(const std::string& text) {
  return absl::StrReplaceAll(text, {{kEscapedSpace, " "}});
}

}  // namespace onegrid::model
