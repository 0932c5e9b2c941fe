package arm

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

const (
	// ServiceTagsPath is where a service tag file is looked for that nobody names.
	ServiceTagsPath = "/etc/nsgd/ServiceTags_Public.json"
	// ServiceTagsVariable is an environment variable that names it instead; set and empty: there is none.
	ServiceTagsVariable = "NSGD_SERVICE_TAGS"
)

// DefaultServiceTags is the service tag file to read: the given one, else the one that the environment names, else
// ServiceTagsPath if it is there. Empty: none.
func DefaultServiceTags(given string) string {
	if given != "" {
		return given
	}
	if named, set := os.LookupEnv(ServiceTagsVariable); set {
		return named
	}
	return whereThere(ServiceTagsPath)
}

// whereThere is a path where something is, readable or not; else empty. What can't be read is a fault later.
func whereThere(path string) string {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// written is when a file was last written, as it was read; zero: it was not read.
func (s *source) written(file string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if info := s.seen[file].info; info != nil {
		return info.ModTime()
	}
	return time.Time{}
}
