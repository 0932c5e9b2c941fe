package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const labFolderPattern = "nsgd-lab-*"

// labFolder makes a folder for the lab's documents below parent. It locks the folder until
// the process ends, and removes the folders of labs that were killed. release removes the folder.
func labFolder(parent string) (dir string, release func() error, err error) {
	if err := removeLeftLabs(parent); err != nil {
		return "", nil, err
	}
	for {
		if dir, err = os.MkdirTemp(parent, labFolderPattern); err != nil {
			return "", nil, err
		}
		lock, err := lockFolder(dir, syscall.LOCK_EX)
		if errors.Is(err, os.ErrNotExist) {
			continue // another lab removed it before the lock
		}
		if err != nil {
			return "", nil, errors.Join(err, os.RemoveAll(dir))
		}
		return dir, func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }, nil
	}
}

// removeLeftLabs removes the folders below parent that no running lab holds.
func removeLeftLabs(parent string) error {
	list, err := filepath.Glob(filepath.Join(parent, labFolderPattern))
	if err != nil {
		return err
	}
	for _, dir := range list {
		// Every user can write to the folder of temporary files: only our own are removed.
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		lock, err := lockFolder(dir, syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			return err
		}
	}
	return nil
}

// lockFolder locks a folder, and fails when the folder was removed before the lock was held.
func lockFolder(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), how)
	if err == nil {
		_, err = os.Lstat(dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}
