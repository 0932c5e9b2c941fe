// Package console holds the pages of the console: plain files, as browsers read them. Package dataplane/console serves them
// with the data that they show.
package console

import "embed"

// Files has index.html and what that names. No file names anything of another host.
//
//go:embed *.html *.css *.js *.svg
var Files embed.FS
