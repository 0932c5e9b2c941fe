// Packaging writes the container image of nsgd without a container engine: one layer with what a folder holds, on
// nothing. The bytes depend on the folder, the version and SOURCE_DATE_EPOCH alone.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	folder := flag.String("folder", "", "what the image holds, from its root on")
	version := flag.String("version", "", "the version, also the image's tag")
	arch := flag.String("arch", "", "the architecture, as Go names it")
	out := flag.String("out", "", "where to write: OUT is a folder in the OCI layout, OUT.tar an archive for docker load or podman load")
	flag.Parse()
	if err := write(*folder, *version, *arch, *out); err != nil {
		fmt.Fprintln(os.Stderr, "packaging:", err)
		os.Exit(1)
	}
}

func write(folder, version, arch, out string) error {
	for flag, value := range map[string]string{"folder": folder, "version": version, "arch": arch, "out": out} {
		if value == "" {
			return fmt.Errorf("-%s is missing", flag)
		}
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH=%q: must be seconds since 1970: %w", os.Getenv("SOURCE_DATE_EPOCH"), err)
	}
	tag, err := name.NewTag("nsgd:" + version)
	if err != nil {
		return err
	}
	image, err := build(folder, version, arch, time.Unix(seconds, 0).UTC())
	if err != nil {
		return err
	}
	index, err := layout.Write(out, empty.Index)
	if err != nil {
		return err
	}
	if err := index.AppendImage(image, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}),
		layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": version})); err != nil {
		return err
	}
	return tarball.WriteToFile(out+".tar", tag, image)
}

// build makes the image. In a container no systemd keeps flows and devices: nsgd keep does.
func build(folder, version, arch string, created time.Time) (v1.Image, error) {
	content, err := pack(folder, created)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(empty.Image, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "nsgd " + version}})
	if err != nil {
		return nil, err
	}
	appended, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: arch, OS: "linux", Created: v1.Time{Time: created}, RootFS: appended.RootFS, History: appended.History,
		Config: v1.Config{
			Entrypoint: []string{"/usr/bin/nsgd", "keep", "--", "/usr/bin/nsgd", "run", "--config", "/etc/nsgd/nsgd.yaml"},
			Env:        []string{"PATH=/usr/bin"},
			User:       "0:0", // with the capabilities alone that the engine gives it
			WorkingDir: "/",
			StopSignal: "SIGTERM",
			Labels: map[string]string{
				"org.opencontainers.image.title":       "nsgd",
				"org.opencontainers.image.description": "Azure network security groups as a packet filter",
				"org.opencontainers.image.version":     version,
				"org.opencontainers.image.created":     created.Format(time.RFC3339),
				"org.opencontainers.image.source":      "https://github.com/nsgd/nsgd",
				"org.opencontainers.image.licenses":    "Apache-2.0",
			},
		},
	})
}

// pack makes a tar of a folder, in the order of names. Everything in it is root's.
func pack(folder string, created time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == folder {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return fmt.Errorf("%s: is %v: a file or a folder is needed", path, info.Mode().Type())
		}
		header, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		if header.Name = filepath.ToSlash(relative); info.IsDir() {
			header.Name += "/"
		}
		header.Uid, header.Gid, header.Uname, header.Gname, header.ModTime = 0, 0, "", "", created
		header.AccessTime, header.ChangeTime, header.Format = time.Time{}, time.Time{}, tar.FormatPAX
		if err := w.WriteHeader(header); err != nil || info.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}
