package cli

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// noFollow is for openRegular, which has no use for it here.
const noFollow = 0

// openRegular opens what is a file and nothing else.
func openRegular(path string, flag int) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func systemPolicy() string {
	return filepath.Join(os.Getenv("ProgramData"), "kubectl-oidc_device", "policy.yaml")
}

// readPolicyFile relies on the folder's access list.
func readPolicyFile(path string) ([]byte, error) {
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}
