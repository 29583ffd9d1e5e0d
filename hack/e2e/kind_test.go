package e2e

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
	apiserver "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	strictyaml "sigs.k8s.io/yaml"

	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
)

// TestKindConfig reads kind-config.yaml as kind does, and follows the file
// that it hands to the API server through mounts and flags. kubeadm's part is
// opaque to kind: here it is checked against the fields that it uses.
func TestKindConfig(t *testing.T) {
	root, err := kube.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "kind-config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var cluster v1alpha4.Cluster
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&cluster); err != nil {
		t.Fatal(err)
	}
	if cluster.APIVersion != "kind.x-k8s.io/v1alpha4" || cluster.Kind != "Cluster" {
		t.Fatalf("kind would not know %s %s", cluster.APIVersion, cluster.Kind)
	}
	node := cluster.Nodes[0]
	if len(node.ExtraMounts) != 1 || len(node.KubeadmConfigPatches) != 1 {
		t.Fatalf("one mount and one patch, not %+v", node)
	}

	var patch struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		APIServer  struct {
			ExtraArgs    []struct{ Name, Value string } `json:"extraArgs"`
			ExtraVolumes []struct {
				Name, HostPath, MountPath, PathType string
				ReadOnly                            bool
			} `json:"extraVolumes"`
		} `json:"apiServer"`
	}
	if err := strictyaml.UnmarshalStrict([]byte(node.KubeadmConfigPatches[0]), &patch); err != nil {
		t.Fatal(err)
	}
	if patch.APIVersion != "kubeadm.k8s.io/v1beta4" || patch.Kind != "ClusterConfiguration" {
		t.Errorf("kind would pass over a patch of %s %s", patch.APIVersion, patch.Kind)
	}
	flag := patch.APIServer.ExtraArgs[0]
	if flag.Name != "authentication-config" {
		t.Errorf("the flag is %s", flag.Name)
	}
	mount, volume := node.ExtraMounts[0], patch.APIServer.ExtraVolumes[0]
	inVolume, ok := strings.CutPrefix(flag.Value, volume.MountPath+"/")
	if !ok || volume.HostPath != mount.ContainerPath {
		t.Fatalf("the file %s is not in the volume %+v from the mount %+v", flag.Value, volume, mount)
	}
	file := filepath.Join(root, filepath.FromSlash(path.Join(mount.HostPath, inVolume)))

	text, err = os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var authentication apiserver.AuthenticationConfiguration
	if err := strictyaml.UnmarshalStrict(text, &authentication); err != nil {
		t.Fatal(err)
	}
	if authentication.APIVersion != "apiserver.config.k8s.io/v1" || authentication.Kind != "AuthenticationConfiguration" {
		t.Errorf("the API server would not know %s %s", authentication.APIVersion, authentication.Kind)
	}

	// The API server says more than the types: it compiles the expressions.
	t.Run("starts", func(t *testing.T) {
		t.Parallel()
		cluster, err := kube.Start(t.Context(), kube.Config{Bins: theParts(t).bins, Authentication: string(text)})
		if err != nil {
			t.Fatal(err)
		}
		cluster.Stop()
	})
}
