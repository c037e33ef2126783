#include "tests/fuzz/file_sections.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

// Walks over a good file, taking note of where sections end.
class Walker {
 public:
  explicit Walker(absl::string_view file) : file_(file) {
    boundaries_.push_back({"nothing", 0});
  }

  template <typename T>
  T Take() {
    Promise(file_.size() - at_ >= sizeof(T), "a good file ends early");
    T value;
    std::memcpy(&value, file_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::string TakeString() {
    const auto size = Take<uint64_t>();
    const std::string text(file_.substr(at_, size));
    Skip(size);
    return text;
  }
  uint64_t TakeVarint() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = Take<uint8_t>();
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
  void Skip(uint64_t bytes) {
    Promise(file_.size() - at_ >= bytes, "a good file ends early");
    at_ += bytes;
  }
  void SkipTo(size_t at) { Skip(at - at_); }
  void Mark(const std::string& after) { boundaries_.push_back({after, at_}); }

  size_t at() const { return at_; }
  bool AtEnd() const { return at_ == file_.size(); }
  // Without what is no cut, the end.
  std::vector<Boundary> Finish() {
    while (boundaries_.back().at >= file_.size()) boundaries_.pop_back();
    return std::move(boundaries_);
  }

 private:
  absl::string_view file_;
  size_t at_ = 0;
  std::vector<Boundary> boundaries_;
};

// Skips a value of a GGUF type, named by its number in the file.
void SkipGgufValue(Walker& walker, uint32_t type) {
  constexpr int kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  constexpr uint32_t kString = 8, kArray = 9;
  if (type == kString) {
    walker.TakeString();
  } else if (type == kArray) {
    const auto element = walker.Take<uint32_t>();
    const auto count = walker.Take<uint64_t>();
    for (uint64_t i = 0; i < count; ++i) SkipGgufValue(walker, element);
  } else {
    walker.Skip(kBytes[type]);
  }
}

}  // namespace

std::vector<Boundary> GgufBoundaries(absl::string_view file) {
  constexpr size_t kAlignment = 32;
  Walker walker(file);
  walker.Skip(4);
  walker.Mark("magic");
  walker.Take<uint32_t>();
  walker.Mark("version");
  const auto tensors = walker.Take<uint64_t>();
  walker.Mark("tensor count");
  const auto entries = walker.Take<uint64_t>();
  walker.Mark("metadata count");
  for (uint64_t i = 0; i < entries; ++i) {
    const std::string key = walker.TakeString();
    walker.Mark("key of " + key);
    const auto type = walker.Take<uint32_t>();
    walker.Mark("type of " + key);
    SkipGgufValue(walker, type);
    walker.Mark("value of " + key);
  }
  std::vector<uint64_t> offsets;
  std::vector<std::string> names;
  for (uint64_t i = 0; i < tensors; ++i) {
    names.push_back(walker.TakeString());
    walker.Skip(walker.Take<uint32_t>() * sizeof(uint64_t));
    walker.Take<uint32_t>();
    offsets.push_back(walker.Take<uint64_t>());
    walker.Mark("table entry of " + names.back());
  }
  const size_t data = (walker.at() + kAlignment - 1) / kAlignment * kAlignment;
  // The data of a tensor begins where the one before and its padding end.
  for (uint64_t i = 0; i < tensors; ++i) {
    walker.SkipTo(data + offsets[i]);
    walker.Mark(i == 0 ? "alignment" : "data of " + names[i - 1]);
  }
  return walker.Finish();
}

std::vector<Boundary> SafetensorsBoundaries(absl::string_view file) {
  Walker walker(file);
  const auto size = walker.Take<uint64_t>();
  walker.Mark("length");
  const size_t header = walker.at();
  walker.Skip(size);
  walker.Mark("header");
  const auto json = nlohmann::json::parse(file.substr(header, size));
  const size_t data = walker.at();
  std::vector<Boundary> tensors;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    tensors.push_back(
        {"data of " + name, data + entry["data_offsets"][1].get<size_t>()});
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.at < b.at; });
  for (const Boundary& tensor : tensors) {
    walker.SkipTo(tensor.at);
    walker.Mark(tensor.after);
  }
  return walker.Finish();
}

std::vector<Boundary> ProtoBoundaries(absl::string_view file) {
  constexpr uint64_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;
  Walker walker(file);
  while (!walker.AtEnd()) {
    const uint64_t key = walker.TakeVarint();
    const size_t begin = walker.at();
    switch (key & 7) {
      case kVarint:
        walker.TakeVarint();
        break;
      case kFixed64:
        walker.Skip(8);
        break;
      case kBytes:
        walker.Skip(walker.TakeVarint());
        break;
      case kFixed32:
        walker.Skip(4);
        break;
      default:
        Promise(false, "a good file has an unknown wire type");
    }
    walker.Mark(absl::StrCat("field ", key >> 3, " at byte ", begin));
  }
  return walker.Finish();
}

}  // namespace onegrid::fuzz
