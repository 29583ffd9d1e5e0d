package cli

import (
	"os"
	"path/filepath"
)

func systemPolicy() string {
	return filepath.Join(os.Getenv("ProgramData"), "kubectl-oidc_device", "policy.yaml")
}

// readPolicyFile relies on the folder's access list.
func readPolicyFile(path string) ([]byte, error) { return os.ReadFile(path) }
