package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"
)

// writeCredentials writes the cluster's CA, the apiserver's certificate, the
// administrator's kubeconfig, and the public half of the service account key:
// kube-apiserver doesn't derive it from every private key that it can sign with.
func writeCredentials(s settings, ready readyLine) error {
	ca, err := newAuthority("cluster CA")
	if err != nil {
		return err
	}
	serving, err := ca.issueServing("kube-apiserver")
	if err != nil {
		return err
	}
	admin, err := ca.issueClient("admin", "system:masters")
	if err != nil {
		return err
	}
	serviceAccountKey, err := publicKeyPEM(s.serviceAccountKey)
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	for name, content := range map[string][]byte{
		"ca.crt":              ca.certificatePEM,
		"apiserver.crt":       serving.certificatePEM,
		"apiserver.key":       serving.keyPEM,
		"service-account.pub": serviceAccountKey,
	} {
		if err := os.WriteFile(s.file(name), content, 0o600); err != nil {
			return err
		}
	}

	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["test"] = &clientcmdapi.Cluster{Server: ready.Server, CertificateAuthorityData: ca.certificatePEM}
	kubeconfig.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: admin.certificatePEM, ClientKeyData: admin.keyPEM}
	kubeconfig.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "admin"}
	kubeconfig.CurrentContext = "test"
	return clientcmd.WriteToFile(*kubeconfig, ready.Kubeconfig)
}

// publicKeyPEM returns the public half of a private key file.
func publicKeyPEM(file string) ([]byte, error) {
	key, err := keyutil.PrivateKeyFromFile(file)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyutil.PublicKeyBlockType, Bytes: der}), nil
}
