import java.io.File;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.List;

/**
 * The system class loader of a job server that is not to send its archives with every job: it finds
 * them in the folders of the property "archives" and does not tell which they are. The cluster has
 * the same ones on its own class path. As the system's, it also reads what Flink answers.
 *
 * <p>java -Djava.system.class.loader=Archives -Darchives=FOLDER:FOLDER CLASS
 */
public class Archives extends URLClassLoader {
  public Archives(ClassLoader parent) throws Exception {
    super(found(), ClassLoader.getPlatformClassLoader());
  }

  private static URL[] found() throws Exception {
    List<URL> archives = new ArrayList<>();
    for (String folder : System.getProperty("archives").split(File.pathSeparator)) {
      for (File file : new File(folder).listFiles()) {
        archives.add(file.toURI().toURL());
      }
    }
    return archives.toArray(new URL[0]);
  }

  @Override
  public URL[] getURLs() {
    return new URL[0];
  }
}
