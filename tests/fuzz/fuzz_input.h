// What the fuzz functions of this folder share: files made of one input, and
// promises that end the process when they are broken.
#ifndef TESTS_FUZZ_FUZZ_INPUT_H_
#define TESTS_FUZZ_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace onegrid::fuzz {

// Between the files of an input that stands for several; never in UTF-8.
inline constexpr char kFileMark[] = "\xFE\xFD\xFE\xFD";

inline absl::string_view View(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// The input cut at the first `count` - 1 marks into as many files. Files that
// it does not have are empty.
std::vector<absl::string_view> Files(absl::string_view input, size_t count);

// The folder of this process's files: in $TEST_TMPDIR, $TMPDIR or /dev/shm. It
// is removed when the process ends by itself.
const std::string& Folder();

// Puts a file into the folder, or takes it out of it. What maps it must be
// closed before. Put returns the path.
std::string Put(const std::string& name, absl::string_view bytes);
void Remove(const std::string& name);

// Aborts, with the words, unless `holds`.
void Promise(bool holds, absl::string_view words);

// Aborts unless the status is OK or an error with a reason whose message names
// `path` (any message will do for an empty one).
void PromiseNamed(const absl::Status& status, absl::string_view path);

}  // namespace onegrid::fuzz

#endif  // TESTS_FUZZ_FUZZ_INPUT_H_
