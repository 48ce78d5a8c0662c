"""What Kubernetes knows of the processes of this node, and which of them are to be captured."""
